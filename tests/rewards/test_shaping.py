"""What lengths add, worked by hand."""

import numpy as np
import pytest

from dppo_jax.rewards.shaping import ShapingConfig, parse_shaping, shape


def _shape(text, lengths, right, group_size=4, max_length=100, cache=20):
  config = ShapingConfig(
    terms=parse_shaping(text), max_length=max_length, cache=cache
  )
  return shape(lengths, np.asarray(right, bool), group_size, config)


def test_overlong_is_linear_in_the_cache():
  added = _shape('overlong', [1, 80, 85, 90, 99, 100, 101, 500], [1.0] * 8)
  np.testing.assert_allclose(added, [0, 0, -0.25, -0.5, -0.95, -1, -1, -1])


def test_brief_compares_a_group():
  added = _shape(
    'brief', [10, 20, 30, 20, 7, 7, 7, 7], [1, 1, 0, 0, 1, 0, 1, 0]
  )
  np.testing.assert_allclose(added, [0.5, 0, -0.5, 0, 0, 0, 0, 0])
  # A wrong answer gains nothing by being short.
  np.testing.assert_allclose(
    _shape('brief', [10, 20], [0, 1], group_size=2), [0, -0.5]
  )


def test_shapings_add_up_by_weight():
  lengths, rewards = [80, 90, 100, 90], [1.0, 1.0, 1.0, 0.0]
  both = _shape('overlong + 0.2 * brief', lengths, rewards)
  np.testing.assert_allclose(both, [0.1, -0.5, -1.1, -0.5])
  np.testing.assert_array_equal(_shape('none', lengths, rewards), np.zeros(4))


def test_unknown_shapings_are_refused():
  with pytest.raises(ValueError, match=r"rewards\.shaping: .*'overlong'\?"):
    parse_shaping('overlng')


def test_a_sum_of_rewards_is_no_correctness():
  with pytest.raises(TypeError, match=r'bool, from verdicts\.is_right'):
    shape([1, 2], [0.1, 1.1], 2, ShapingConfig(terms=(), max_length=9, cache=1))
