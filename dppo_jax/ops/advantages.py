"""Rewards of a group of completions to advantages; one number a completion."""

from collections.abc import Mapping

import chex
import jax.numpy as jnp

from dppo_jax.base import AdvantageFn, Array


def group_mean(rewards: Array) -> Array:
  """A = R - mean of the group: both papers' own runs (DPPO section 2).

  Args:
    rewards: f32 [N, G].

  Returns:
    f32 [N, G].

  >>> group_mean(jnp.array([[1.0, 0.0, 0.0, 1.0]])).tolist()
  [[0.5, -0.5, -0.5, 0.5]]
  """
  chex.assert_rank(rewards, 2)
  # Equal rewards give exactly 0: the mean of equal numbers may round.
  shifted = rewards - rewards[:, :1]
  return shifted - jnp.mean(shifted, axis=1, keepdims=True)


def group_mean_std(rewards: Array) -> Array:
  """A = (R - mean) / (std + 1e-6), GRPO (arXiv:2402.03300); [N, G] -> same.

  The standard deviation is the unbiased one; a group of one has none and
  keeps A = 0.
  """
  centered = group_mean(rewards)
  if rewards.shape[1] == 1:
    return centered
  std = jnp.std(centered, axis=1, keepdims=True, ddof=1)
  return centered / (std + 1e-6)


def leave_one_out(rewards: Array) -> Array:
  """A = R - mean of the *others*, RLOO (arXiv:2402.14740); [N, G] -> same.

  Equals group_mean times G / (G - 1); a group of one has no others and keeps
  A = 0.
  """
  size = rewards.shape[1]
  return group_mean(rewards) * (size / max(size - 1, 1))


ADVANTAGES: Mapping[str, AdvantageFn] = {
  'group_mean': group_mean,
  'group_mean_std': group_mean_std,
  'leave_one_out': leave_one_out,
}

# Those that compare the completions of a prompt with one another: of a single
# one the advantage is 0, whatever it earns, and nothing is trained.
NEED_OTHERS = frozenset({'group_mean', 'group_mean_std', 'leave_one_out'})
