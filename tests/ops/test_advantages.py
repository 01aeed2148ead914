import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.ops import advantages

_REWARDS = np.array(
  [[1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0], [0.5, 0.25, 2.0, -1.0]],
  np.float32,
)
_ROWS = pytest.mark.parametrize('name', advantages.ADVANTAGES)


_COMPILED = {name: jax.jit(fn) for name, fn in advantages.ADVANTAGES.items()}


def _advantages(name, rewards):
  return np.asarray(_COMPILED[name](np.asarray(rewards, np.float32)))


# Rewards 1 0 0 0 have mean 1/4 and variance (9 + 1 + 1 + 1) / 16 / 3 = 1/4;
# the mean of the others is 0 for the first and 1/3 for the rest.
_BY_HAND = {
  'group_mean': [0.75, -0.25, -0.25, -0.25],
  'group_mean_std': [
    0.75 / 0.500001,
    -0.25 / 0.500001,
    -0.25 / 0.500001,
    -0.25 / 0.500001,
  ],
  'leave_one_out': [1.0, -1 / 3, -1 / 3, -1 / 3],
}


@_ROWS
def test_by_hand(name):
  got = _advantages(name, _REWARDS)
  assert got.shape == _REWARDS.shape
  assert got.dtype == np.float32
  np.testing.assert_allclose(got[0], _BY_HAND[name], rtol=3e-7)


def test_the_standard_deviation_has_a_floor():
  # Rewards 1e-6 apart are as good as equal: A is half of what it would be.
  got = _advantages('group_mean_std', [[0.0, 2.0**0.5 * 1e-6]])
  np.testing.assert_allclose(got, [[-(0.5**1.5), 0.5**1.5]], rtol=1e-5)


def test_leave_one_out_subtracts_the_mean_of_the_others():
  got = _advantages('leave_one_out', _REWARDS)
  for i in range(4):
    others = np.delete(_REWARDS, i, axis=1).mean(axis=1)
    np.testing.assert_allclose(got[:, i], _REWARDS[:, i] - others, rtol=1e-6)


@_ROWS
def test_every_group_sums_to_zero(name):
  sums = _advantages(name, _REWARDS).sum(axis=1)
  np.testing.assert_allclose(sums, 0.0, atol=1e-6)


@_ROWS
def test_groups_are_independent(name):
  together = _advantages(name, _REWARDS)
  for row, rewards in zip(together, _REWARDS, strict=True):
    np.testing.assert_allclose(
      row, _advantages(name, rewards[None])[0], rtol=1e-6
    )


@_ROWS
def test_a_constant_added_to_the_rewards_changes_nothing(name):
  np.testing.assert_allclose(
    _advantages(name, _REWARDS + 4.0), _advantages(name, _REWARDS), rtol=1e-6
  )


@_ROWS
def test_better_rewards_never_get_smaller_advantages(name):
  order = np.argsort(_REWARDS, axis=1)
  ranked = np.take_along_axis(_advantages(name, _REWARDS), order, axis=1)
  assert (np.diff(ranked, axis=1) >= 0).all()
  assert (ranked[:, -1] > ranked[:, 0]).all()


@_ROWS
@pytest.mark.parametrize('size', [1, 3, 16, 25, 32])
@pytest.mark.parametrize('reward', [0.0, 1.0, 0.1, 0.7, 0.9])
def test_a_group_of_equals_contributes_nothing(name, size, reward):
  got = _advantages(name, np.full((2, size), reward, np.float32))
  np.testing.assert_array_equal(got, 0.0)


@_ROWS
def test_rewards_must_come_in_groups(name):
  with pytest.raises(AssertionError):
    _advantages(name, np.zeros((2, 2, 2), np.float32))


def test_which_estimators_need_other_completions():
  """Those that give a single completion 0, whatever it earned."""
  alone = jnp.array([[3.0], [-1.0]])
  assert {
    name for name, fn in advantages.ADVANTAGES.items() if not fn(alone).any()
  } == advantages.NEED_OTHERS
