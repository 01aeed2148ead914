"""Exact top-K of each row, without a sort of all columns."""

import jax
import jax.numpy as jnp

from dppo_jax.base import Array
from dppo_jax.sampling import column_blocks

# Columns up to which counting is faster than sorting.
_FEW = 32


def top_k_of_blocks(
  blocks: Array, maxima: Array, k: int
) -> tuple[Array, Array]:
  """The K largest values of each row, equal to `lax.top_k`, ties included.

  Only blocks with one of the K largest maxima are searched: no other block can
  have one of the K largest values. Where K is most of a few columns, each is
  placed by how many come before it.

  Args:
    blocks: f32 [B / g, blocks, g, columns], of `column_blocks.split`.
    maxima: f32 [B, blocks], of each block.
    k: K, at most the number of columns.

  Returns:
    f32 [B, K], descending, and their columns i32 [B, K].
  """
  rows, num_blocks = maxima.shape
  size = num_blocks * blocks.shape[3]
  if num_blocks > k:
    return _among_maxima(k, blocks, maxima)
  # All blocks of a row, in order.
  values = jnp.swapaxes(blocks, 1, 2).reshape(rows, size)
  if size <= _FEW and 2 * k > size:
    return _by_rank(k, values)
  values, columns = jax.lax.top_k(values, k)
  return values, columns


def _among_maxima(k: int, blocks: Array, maxima: Array) -> tuple[Array, Array]:
  rows, width = maxima.shape[0], blocks.shape[3]
  _, chosen = jax.lax.top_k(maxima, k)
  # In column order, so that the first of equal values is taken.
  chosen = jnp.sort(chosen, axis=1)
  candidates = column_blocks.take(blocks, chosen)
  values, place = jax.lax.top_k(candidates.reshape(rows, -1), k)
  block = jnp.take_along_axis(chosen, place // width, axis=1)
  return values, block * width + place % width


def _by_rank(k: int, values: Array) -> tuple[Array, Array]:
  columns = jnp.arange(values.shape[1], dtype=jnp.int32)[None, None]
  this, other = values[:, :, None], values[:, None, :]
  # Of equal values the first is taken.
  earlier = columns < jnp.swapaxes(columns, 1, 2)
  before = (other > this) | ((other == this) & earlier)
  rank = jnp.sum(before, axis=2)
  placed = rank[:, None, :] == jnp.arange(k)[None, :, None]
  found = jnp.max(jnp.where(placed, columns, 0), axis=2)
  return jnp.take_along_axis(values, found, axis=1), found
