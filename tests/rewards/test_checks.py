"""All that is wrong with the section is said, each with its path."""

import pytest

from dppo_jax.rewards import checks

_SECTION = {
  'verifier': 'numeric + 0.1*one_boxed',
  'extraction': 'boxed, hashes',
  'num_workers': 0,
  'shaping': 'overlong',
  'overlong_cache': 4,
}


def test_a_fine_section_has_no_problems():
  assert list(checks.find_misspelled(_SECTION)) == []
  assert list(checks.find_misfits(_SECTION, 4)) == []


def test_every_misspelled_key_is_named():
  section = {
    **_SECTION,
    'verifier': 'numerc',
    'extraction': 'box',
    'shaping': 'short',
  }
  found = list(checks.find_misspelled(section))
  paths = [problem.partition(':')[0] for problem in found]
  assert paths == ['rewards.verifier', 'rewards.extraction', 'rewards.shaping']


@pytest.mark.parametrize('cache', [0, 5])
def test_the_cache_lies_within_the_limit(cache):
  section = {**_SECTION, 'overlong_cache': cache}
  (problem,) = checks.find_misfits(section, 4)
  assert problem.startswith(f'rewards.overlong_cache: got {cache}; ')
  assert list(checks.find_misfits({**section, 'shaping': 'brief'}, 4)) == []
