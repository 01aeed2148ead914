"""Exact top-K of each row, by the fastest method of the backend."""

import functools

import jax
import jax.numpy as jnp

from dppo_jax.base import Array

# Columns up to which a CPU counts faster than it sorts.
_FEW = 32


def top_k_of_blocks(
  blocks: Array, maxima: Array, k: int
) -> tuple[Array, Array]:
  """The K largest values of each row, equal to `lax.top_k`, ties included.

  On CPUs, whose sort is slow, only blocks with one of the K largest maxima are
  searched: no other block can have one of the K largest values. Where K is most
  of a few columns, each is placed by how many come before it. Other backends
  are faster on the full row.

  Args:
    blocks: f32 [B, blocks, columns per block].
    maxima: f32 [B, blocks], of each block.
    k: K, at most the number of columns.

  Returns:
    f32 [B, K], descending, and their columns i32 [B, K].
  """
  size = blocks.shape[1] * blocks.shape[2]
  if size <= _FEW and 2 * k > size:
    on_cpu = _by_rank
  elif blocks.shape[1] <= k:
    on_cpu = _of_all
  else:
    on_cpu = _among_maxima
  if on_cpu is _of_all:
    return _of_all(k, blocks, maxima)
  values, columns = jax.lax.platform_dependent(
    blocks,
    maxima,
    cpu=functools.partial(on_cpu, k),
    default=functools.partial(_of_all, k),
  )
  return values, columns


def _of_all(k: int, blocks: Array, maxima: Array) -> tuple[Array, Array]:
  del maxima
  values, columns = jax.lax.top_k(blocks.reshape(blocks.shape[0], -1), k)
  return values, columns


def _among_maxima(k: int, blocks: Array, maxima: Array) -> tuple[Array, Array]:
  rows, _, width = blocks.shape
  _, chosen = jax.lax.top_k(maxima, k)
  # In column order, so that the first of equal values is taken.
  chosen = jnp.sort(chosen, axis=1)
  candidates = jnp.take_along_axis(blocks, chosen[:, :, None], axis=1)
  values, place = jax.lax.top_k(candidates.reshape(rows, -1), k)
  block = jnp.take_along_axis(chosen, place // width, axis=1)
  return values, block * width + place % width


def _by_rank(k: int, blocks: Array, maxima: Array) -> tuple[Array, Array]:
  del maxima
  values = blocks.reshape(blocks.shape[0], -1)
  columns = jnp.arange(values.shape[1], dtype=jnp.int32)[None, None]
  this, other = values[:, :, None], values[:, None, :]
  # Of equal values the first is taken.
  earlier = columns < jnp.swapaxes(columns, 1, 2)
  before = (other > this) | ((other == this) & earlier)
  rank = jnp.sum(before, axis=2)
  placed = rank[:, None, :] == jnp.arange(k)[None, :, None]
  found = jnp.max(jnp.where(placed, columns, 0), axis=2)
  return jnp.take_along_axis(values, found, axis=1), found
