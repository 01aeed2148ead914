"""Blockwise inverse-CDF sampling: one token per row from one uniform number."""

import chex
import jax.numpy as jnp

from dppo_jax.base import Array
from dppo_jax.sampling import column_blocks

# Scales a sum to the next smaller float, so that a target is always below it.
JUST_BELOW_ONE = 1.0 - 2.0**-23


def draw(
  blocks: Array, shift: Array, sums: Array, target: Array
) -> tuple[Array, Array]:
  """Inverse-CDF draw: the first column whose cumulative mass exceeds a target.

  Two levels: the block is found among the block sums, then the column within
  it. Exact up to f32 rounding of the sums; a column of mass 0 is never drawn.
  It needs no random numbers of size [B, V].

  Args:
    blocks: f32 [B / g, blocks, g, columns], of `column_blocks.split`; the mass
      of a column is exp(block - shift).
    shift: f32 [B].
    sums: f32 [B, blocks], masses of the blocks.
    target: f32 [B] in [0, total mass).

  Returns:
    i32 [B], the column; and f32 [B], the value of `blocks` there.

  >>> log_probs = jnp.log(jnp.array([[0.2, 0.8], [0.2, 0.8]]))
  >>> blocks, sums = log_probs[:, None, None], jnp.ones((2, 1))
  >>> column, _ = draw(blocks, jnp.zeros(2), sums, jnp.array([0.1, 0.3]))
  >>> column.tolist()
  [0, 1]
  """
  chex.assert_rank([blocks, sums, target], [4, 2, 1])
  block, rest = first_above(sums, target)
  chosen = column_blocks.take(blocks, block[:, None])[:, 0]
  offset, _ = first_above(jnp.exp(chosen - shift[:, None]), rest)
  found = jnp.take_along_axis(chosen, offset[:, None], axis=1)[:, 0]
  return block * blocks.shape[3] + offset, found


def first_above(masses: Array, target: Array) -> tuple[Array, Array]:
  """First index whose cumulative sum exceeds `target`, and the remainder there.

  Indices without mass are skipped: cumulative sums are computed in a tree, and
  rounding could otherwise raise a sum at an index that adds nothing.

  Args:
    masses: f32 [B, n].
    target: f32 [B].

  Returns:
    Index i32 [B], and target minus the sum before it f32 [B].
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
