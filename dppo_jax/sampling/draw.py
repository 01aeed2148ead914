"""Drawing a token from each row with one uniform number."""

import chex
import jax.numpy as jnp

from dppo_jax.base import Array

# Entries a block of the two-level search; one cache line of sums is enough to
# find the block at V = 152 k, and below two blocks one level is cheaper.
BLOCK = 128
# Scales a sum to the next smaller float, so that a target is always below it.
JUST_BELOW_ONE = 1.0 - 2.0**-23


def draw(log_probs: Array, uniform: Array) -> Array:
  """Inverse-CDF draw: the first token whose cumulative mass exceeds u.

  Two levels: the block of the vocabulary is found among block sums, then the
  token within the block. Exact up to f32 rounding of the sums; a token of
  probability 0 is never drawn. No noise of size [B, V] is made.

  Args:
    log_probs: f32 [B, V], normalized.
    uniform: f32 [B] in [0, 1).

  Returns:
    i32 [B].

  >>> draw(jnp.log(jnp.array([[0.2, 0.8], [0.2, 0.8]])), jnp.array([0.1, 0.3]))
  Array([0, 1], dtype=int32)
  """
  chex.assert_rank([log_probs, uniform], [2, 1])
  probs = jnp.exp(log_probs)
  rows, size = probs.shape
  if size <= 2 * BLOCK:
    return _first_above(probs, uniform * jnp.sum(probs, axis=1))[0]
  blocks = jnp.pad(probs, ((0, 0), (0, -size % BLOCK)))
  blocks = blocks.reshape(rows, -1, BLOCK)
  sums = jnp.sum(blocks, axis=2)
  block, rest = _first_above(sums, uniform * jnp.sum(sums, axis=1))
  chosen = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
  offset, _ = _first_above(chosen, rest)
  return block * BLOCK + offset


def _first_above(masses: Array, target: Array) -> tuple[Array, Array]:
  """First index whose running sum exceeds `target`, and what is left there.

  Indices without mass are passed over: running sums are computed in a tree,
  and their rounding could otherwise lift a sum at an index that adds nothing.
  """
  sums = jnp.cumsum(masses, axis=1)
  reachable = jnp.where(masses > 0, sums, -jnp.inf)
  highest = jnp.max(reachable, axis=1) * JUST_BELOW_ONE
  target = jnp.minimum(target, highest)
  index = jnp.argmax(reachable > target[:, None], axis=1)
  index = index.astype(jnp.int32)
  at = index[:, None]
  before = jnp.take_along_axis(sums, at, 1) - jnp.take_along_axis(masses, at, 1)
  return index, jnp.maximum(target - before[:, 0], 0.0)
