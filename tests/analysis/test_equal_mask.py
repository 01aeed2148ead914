import pytest

from dppo_jax.analysis import equal_mask
from dppo_jax.experiments.figures.harness import judging
from tests.support.tables import table

_FAMILIES = {'one': ('a', 'b'), 'other': ('c', 'd')}


def test_pairs_are_read_in_the_middle_of_the_shared_range():
  points = table(
    {'a': [0.4], 'b': [0.6], 'c': [0.2], 'd': [0.4]},
    masked={'a': [0.1], 'b': [0.5], 'c': [0.2], 'd': [0.4]},
  )
  (pair,) = equal_mask.pairs_at_equal_mask(points, 'reward', 'ab', 'cd')
  assert pair.seed == '0'
  assert pair[1:] == pytest.approx((0.3, 0.5, 0.3))


def test_a_family_of_one_is_a_point():
  points = table(
    {'a': [0.4], 'b': [0.6], 'c': [0.2], 'd': [0.4]},
    masked={'a': [0.25], 'b': [0.5], 'c': [0.2], 'd': [0.4]},
  )
  (pair,) = equal_mask.pairs_at_equal_mask(points, 'reward', 'a', 'cd')
  assert pair[1:] == pytest.approx((0.25, 0.4, 0.25))
  # Beyond the curve, and where neither is one.
  assert not equal_mask.pairs_at_equal_mask(points, 'reward', 'b', 'cd')
  assert not equal_mask.pairs_at_equal_mask(points, 'reward', 'a', 'a')


def test_ranges_that_do_not_meet_are_not_compared():
  points = table(
    {'a': [0.4], 'b': [0.6], 'c': [0.2], 'd': [0.4]},
    masked={'a': [0.1], 'b': [0.2], 'c': [0.3], 'd': [0.4]},
  )
  found = judging.at_equal_mask(
    points, 'reward', _FAMILIES, 'one', 'other', 0.1
  )
  assert found.num_seeds == 0
