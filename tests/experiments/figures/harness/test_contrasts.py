import numpy as np
import pytest

from dppo_jax.analysis import significance
from dppo_jax.experiments.figures.harness import contrasts
from tests.support.tables import table

_HIGH = [0.5, 0.6, 0.7, 0.6, 0.6]
_LOW = [0.1, 0.3, 0.2, 0.2, 0.2]


def test_a_contrast_is_paired_by_seed():
  found = contrasts.contrast(
    table({'a': _HIGH, 'b': _LOW}), 'a wins', 'reward', 'a', 'b', 0.3
  )
  assert (found.verdict, found.num_seeds, found.p) == ('reproduced', 5, 1 / 32)
  assert '+0.4, +0.3, +0.5, +0.4, +0.4; mean +0.4 [' in found.seen
  assert '0.6 against 0.2' in found.seen
  assert found.rule == 'a − b ≥ 0.3'
  back = contrasts.contrast(
    table({'a': _HIGH, 'b': _LOW}), '', 'reward', 'b', 'a', 0.3
  )
  assert (back.verdict, back.p) == ('opposite', 1 / 32)


def test_groups_are_taken_together():
  points = table({'a': [0.5, 0.9], 'b': [0.9, 0.6], 'c': [0.1, 0.1]})
  for how, seen in (('least', 0.55), ('most', 0.9), ('mean', 0.725)):
    group = {how: ('a', 'b')}
    found = contrasts.contrast(points, '', 'reward', group, 'c', 0.1)
    assert found.seen.startswith(f'{seen:.3g} against 0.1')
    assert found.rule == f'{how} of a, b − c ≥ 0.1'


def test_the_reversed_claim_is_of_the_reversed_groups():
  # a is below the most of b and c in every seed, and above one of them.
  values = {'a': [0.5] * 5, 'b': [0.9, 0.1] * 2 + [0.9], 'c': [0.1, 0.9] * 2}
  values['c'].append(0.1)
  most = {'most': ('b', 'c')}
  found = contrasts.contrast(table(values), '', 'reward', 'a', most, 0.1)
  assert '-0.4, -0.4, -0.4, -0.4, -0.4' in found.seen
  assert found.verdict == 'not distinguishable'
  below = {**values, 'a': [0.0] * 5}
  found = contrasts.contrast(table(below), '', 'reward', 'a', most, 0.1)
  assert found.verdict == 'opposite'


def test_a_seed_that_crashed_is_left_out():
  found = contrasts.contrast(
    table({'a': _HIGH, 'b': _LOW[:2]}), '', 'reward', 'a', 'b', 0.1
  )
  assert (found.num_seeds, found.verdict) == (2, 'not distinguishable')
  found = contrasts.contrast(
    table({'a': _HIGH}), '', 'reward', 'a', 'nobody', 0.1
  )
  assert (found.num_seeds, found.verdict) == (0, 'not distinguishable')


@pytest.mark.parametrize(
  ('levels', 'word'),
  [
    ((0.59, 0.21), 'reproduced'),
    ((0.61, 0.21), 'not reproduced'),
    ((0.59, 0.19), 'not reproduced'),
  ],
)
def test_levels_must_be_held_too(levels, word):
  points = table({'a': _HIGH, 'b': _LOW})
  found = contrasts.contrast(points, '', 'reward', 'a', 'b', 0.1, levels=levels)
  assert found.verdict == word


def test_only_some_rows():
  points = table({'a': [0.5, 0.6], 'b': [0.1, 0.2]})
  found = contrasts.contrast(
    points, '', 'reward', 'a', 'b', 0.1, where={'step': '2'}
  )
  assert found.seen.startswith('0.56 against 0.16')


@pytest.mark.parametrize(
  ('shifts', 'word', 'p'),
  [
    ([0.04, -0.04, 0.0, 0.01, -0.02], 'reproduced', 1 / 32),
    # All on one side, and still less than the effect.
    ([0.04] * 5, 'reproduced', 1 / 32),
    # On average none, but one seed is as far apart as an effect.
    ([0.06, -0.04, 0.0, 0.0, -0.02], 'not distinguishable', 6 / 32),
    # Five that differ the same way are not enough against either side.
    ([0.2] * 5, 'not distinguishable', 1.0),
    ([0.2] * 6, 'opposite', 2 / 64),
    ([-0.2] * 6, 'opposite', 2 / 64),
    ([0.04, 0.07] * 3, 'opposite', 2 / 64),
    ([0.03, 0.06] * 3, 'not distinguishable', 42 / 64),
    ([0.01] * 4, 'not distinguishable', 1 / 16),
  ],
)
def test_alike(shifts, word, p):
  points = table({'a': [0.5 + d for d in shifts], 'b': [0.5] * len(shifts)})
  found = contrasts.alike(points, '', 'reward', 'a', 'b', 0.05)
  assert (found.verdict, found.p) == (word, p)
  assert found.rule == '|a − b| < 0.05'


def test_one_difference_is_not_both_alike_and_more():
  rng = np.random.default_rng(0)
  for scale in (0.01, 0.05, 0.1):
    for _ in range(50):
      differences = rng.normal(0.05, scale, 6)
      points = table({'a': 0.5 + differences, 'b': [0.5] * 6})
      more = contrasts.contrast(points, '', 'reward', 'a', 'b', 0.05)
      same = contrasts.alike(points, '', 'reward', 'a', 'b', 0.05)
      assert {more.verdict, same.verdict} != {'reproduced'}


def test_without_a_difference_few_groups_come_up():
  """Of three alike, that one is above or below both others."""
  draws, counts = 800, {'reproduced': 0, 'opposite': 0}
  rng = np.random.default_rng(0)
  for values in rng.normal(0.5, 0.1, (draws, 3, 5)):
    points = table(dict(zip('abc', values, strict=True)))
    found = contrasts.contrast(
      points, '', 'reward', 'a', {'most': ('b', 'c')}, 1e-9
    )
    if found.verdict in counts:
      counts[found.verdict] += 1
  for word, count in counts.items():
    assert count / draws <= significance.LEVEL, word


def test_without_a_difference_few_are_said_to_differ():
  draws, count = 600, 0
  rng = np.random.default_rng(0)
  for values in rng.normal(0.5, 0.1, (draws, 2, 6)):
    points = table(dict(zip('ab', values, strict=True)))
    found = contrasts.alike(points, '', 'reward', 'a', 'b', 1e-9)
    count += found.verdict == 'opposite'
  # 2/64, and three standard errors.
  assert 0 < count / draws <= 2 / 64 + 3 * np.sqrt(2 / 64 / draws)
