"""Exact top-K of each row, by the fastest method of the backend."""

import functools

import jax
import jax.numpy as jnp

from dppo_jax.base import Array


def top_k_of_blocks(
  blocks: Array, maxima: Array, k: int
) -> tuple[Array, Array]:
  """The K largest values of each row, equal to `lax.top_k`, ties included.

  On CPUs, whose sort is slow, only blocks with one of the K largest maxima are
  searched: no other block can have one of the K largest values. Other backends
  are faster on the full row.

  Args:
    blocks: f32 [B, blocks, columns per block].
    maxima: f32 [B, blocks], of each block.
    k: K, at most the number of columns.

  Returns:
    f32 [B, K], descending, and their columns i32 [B, K].
  """
  if blocks.shape[1] <= k:
    return _of_all(k, blocks, maxima)
  among_maxima = functools.partial(_among_maxima, k)
  of_all = functools.partial(_of_all, k)
  values, columns = jax.lax.platform_dependent(
    blocks, maxima, cpu=among_maxima, default=of_all
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
