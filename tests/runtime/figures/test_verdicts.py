import numpy as np
import pytest

from dppo_jax.runtime.figures import verdicts
from tests.runtime.figures.tables import table

_HIGH = [0.5, 0.6, 0.7]
_LOW = [0.1, 0.3, 0.2]


@pytest.mark.parametrize(
  ('differences', 'effect', 'word'),
  [
    ([0.2, 0.3, 0.1], 0.19, 'reproduced'),
    ([0.2, 0.3, 0.1], 0.21, 'not reproduced'),
    ([0.2, 0.3, -0.01], 0.1, 'not distinguishable'),
    ([0.2, 0.3, 0.0], 0.1, 'not distinguishable'),
    ([-0.2, -0.3, -0.1], 0.19, 'opposite'),
    ([-0.2, -0.3, -0.1], 0.3, 'not reproduced'),
    ([0.5], 0.1, 'not distinguishable'),
    ([], 0.1, 'not distinguishable'),
    ([0.5, np.nan], 0.1, 'not distinguishable'),
    ([0.5, np.inf], 0.1, 'not distinguishable'),
  ],
)
def test_words(differences, effect, word):
  assert verdicts.of_differences(differences, effect) == word
  assert word in verdicts.WORDS
  assert word in verdicts.__doc__


def test_a_contrast_is_paired_by_seed():
  found = verdicts.contrast(
    table({'a': _HIGH, 'b': _LOW}), 'a wins', 'reward', 'a', 'b', 0.3
  )
  assert found.verdict == 'reproduced'
  assert found.num_seeds == 3
  assert '+0.4, +0.3, +0.5; mean +0.4' in found.seen
  assert '0.6 against 0.2' in found.seen
  assert found.rule == 'a − b ≥ 0.3'


def test_groups_are_taken_together():
  points = table({'a': [0.5, 0.9], 'b': [0.9, 0.6], 'c': [0.1, 0.1]})
  for how, seen in (('least', 0.55), ('most', 0.9), ('mean', 0.725)):
    found = verdicts.contrast(points, '', 'reward', {how: ('a', 'b')}, 'c', 0.1)
    assert found.seen.startswith(f'{seen:.3g} against 0.1')
    assert found.rule == f'{how} of a, b − c ≥ 0.1'


def test_a_seed_that_crashed_is_left_out():
  found = verdicts.contrast(
    table({'a': _HIGH, 'b': _LOW[:2]}), '', 'reward', 'a', 'b', 0.1
  )
  assert found.num_seeds == 2
  found = verdicts.contrast(
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
  found = verdicts.contrast(points, '', 'reward', 'a', 'b', 0.1, levels=levels)
  assert found.verdict == word


def test_only_some_rows():
  points = table({'a': [0.5, 0.6], 'b': [0.1, 0.2]})
  found = verdicts.contrast(
    points, '', 'reward', 'a', 'b', 0.1, where={'step': '2'}
  )
  assert found.seen.startswith('0.56 against 0.16')


@pytest.mark.parametrize(
  ('other', 'word'),
  [
    ([0.45, 0.65, 0.7], 'reproduced'),
    ([0.3, 0.65, 0.7], 'not distinguishable'),
    ([0.3, 0.8, 0.9], 'opposite'),
  ],
)
def test_alike(other, word):
  points = table({'a': _HIGH, 'b': other})
  assert verdicts.alike(points, '', 'reward', 'a', 'b', 0.1).verdict == word
