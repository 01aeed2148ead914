"""All that is wrong with the section is said, each with its path."""

import pytest

from dppo_jax.runtime.config.checks import rewards

_SECTION = {
  'verifier': 'numeric + 0.1*one_boxed',
  'extraction': 'boxed, hashes',
  'num_workers': 0,
  'shaping': 'overlong',
  'overlong_cache': 4,
  'time_limit_s': 2.0,
  'wall_limit_s': 60.0,
}


def test_a_fine_section_has_no_problems():
  assert list(rewards.find_misspelled(_SECTION)) == []
  assert list(rewards.find_misfits(_SECTION, 4)) == []


def test_every_misspelled_key_is_named():
  section = {
    **_SECTION,
    'verifier': 'numerc',
    'extraction': 'box',
    'shaping': 'short',
  }
  found = list(rewards.find_misspelled(section))
  paths = [problem.partition(':')[0] for problem in found]
  assert paths == ['rewards.verifier', 'rewards.extraction', 'rewards.shaping']


def test_the_clock_allows_what_the_limit_of_cpu_time_does():
  section = {**_SECTION, 'time_limit_s': 90.0}
  (problem,) = rewards.find_misfits(section, 4)
  assert problem.startswith('rewards.wall_limit_s: got 60.0; at least')


@pytest.mark.parametrize('cache', [0, 5])
def test_the_cache_lies_within_the_limit(cache):
  section = {**_SECTION, 'overlong_cache': cache}
  (problem,) = rewards.find_misfits(section, 4)
  assert problem.startswith(f'rewards.overlong_cache: got {cache}; ')
  assert list(rewards.find_misfits({**section, 'shaping': 'brief'}, 4)) == []
