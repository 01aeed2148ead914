"""Products of sorted rows with the matrix of their group.

On accelerators this is `jax.lax.ragged_dot`. Its CPU form multiplies every row
with every matrix and keeps one product, so there the rows are cut into tiles
of one group each and only those are multiplied, forward and backward.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.base import Array
from dppo_jax.ops import products

_LEAST_TILE, _MOST_TILE = 16, 256  # Rows.


@jax.custom_vjp
def grouped_dot(rows: Array, kernels: Array, sizes: Array) -> Array:
  """y[i] = rows[i] @ kernels[g], g being the group of row i.

  Args:
    rows: [n, D], those of group 0 first, then those of group 1, …
    kernels: [E, D, F], of the same dtype.
    sizes: i32 [E], rows of each group; their sum is at most n.

  Returns:
    [n, F] of the same dtype; 0.0 in rows after the last group. Sums are f32.

  >>> rows, kernels = jnp.ones((3, 1)), jnp.array([[[2.0]], [[5.0]]])
  >>> grouped_dot(rows, kernels, jnp.array([1, 1])).ravel().tolist()
  [2.0, 5.0, 0.0]
  """
  return jax.lax.platform_dependent(
    rows, kernels, sizes, cpu=_tiled, default=_ragged
  )


def _ragged(
  rows: Array, kernels: Array, sizes: Array, dtype: Any = jnp.float32
) -> Array:
  product = products.ragged_dot(rows, kernels, sizes, dtype)
  # What a row of no group gets is left open by some backends.
  grouped = jnp.arange(rows.shape[0]) < jnp.sum(sizes)
  return jnp.where(grouped[:, None], product, 0.0).astype(rows.dtype)


def _forward(rows: Array, kernels: Array, sizes: Array) -> Any:
  return grouped_dot(rows, kernels, sizes), (rows, kernels, sizes)


def _backward(saved: Any, cotangent: Array) -> Any:
  rows, kernels, sizes = saved

  def tiled(rows: Array, kernels: Array, sizes: Array, dy: Array) -> Any:
    towards = functools.partial(_tiled, transpose=True)
    return towards(dy, kernels, sizes), _tiled_kernels(rows, dy, sizes, kernels)

  def ragged(rows: Array, kernels: Array, sizes: Array, dy: Array) -> Any:
    product = functools.partial(_ragged, sizes=sizes, dtype=rows.dtype)
    return jax.vjp(product, rows, kernels)[1](dy)

  gradients = jax.lax.platform_dependent(
    rows, kernels, sizes, cotangent, cpu=tiled, default=ragged
  )
  return *gradients, np.zeros(sizes.shape, jax.dtypes.float0)


grouped_dot.defvjp(_forward, _backward)


def tile_size(num_rows: int, num_groups: int) -> int:
  """Rows of a tile: about those of a group, a power of two."""
  share = max(1, num_rows // num_groups)
  return min(_MOST_TILE, max(_LEAST_TILE, 1 << (share - 1).bit_length()))


def _tile(sizes: Array, tile: int, i: Array) -> tuple[Array, Array, Array]:
  """Group, first row and number of rows of tile `i`."""
  ends, tiles = jnp.cumsum(sizes), -(-sizes // tile)
  last = jnp.cumsum(tiles)
  group = jnp.searchsorted(last, i, side='right')
  before = i - (last[group] - tiles[group])
  first = ends[group] - sizes[group] + before * tile
  return group, first, jnp.minimum(tile, ends[group] - first)


def _num_tiles(sizes: Array, tile: int) -> Array:
  return jnp.sum(-(-sizes // tile))


def _rows_of(rows: Array, first: Array, count: Array, tile: int) -> Array:
  """Tile rows [tile, D], 0.0 from `count` on."""
  part = jax.lax.dynamic_slice_in_dim(rows, first, tile)
  return jnp.where(jnp.arange(tile)[:, None] < count, part, 0)


def _tiled(
  rows: Array, kernels: Array, sizes: Array, transpose: bool = False
) -> Array:
  """`grouped_dot`, or with the kernels transposed; one product a tile."""
  num_rows, tile = rows.shape[0], tile_size(rows.shape[0], sizes.shape[0])
  padded = jnp.pad(rows, ((0, tile), (0, 0)))  # A slice never runs over.
  width = kernels.shape[1 if transpose else 2]

  def body(i: Array, out: Array) -> Array:
    group, first, count = _tile(sizes, tile, i)
    part = _rows_of(padded, first, count, tile)
    dimensions = (((1,), (1 if transpose else 0,)), ((), ()))
    product = products.dot_general(part, kernels[group], dimensions)
    # Zeros after `count` are overwritten by the tile after this one.
    return jax.lax.dynamic_update_slice_in_dim(
      out, product.astype(out.dtype), first, 0
    )

  empty = jnp.zeros((num_rows + tile, width), rows.dtype)
  out = jax.lax.fori_loop(0, _num_tiles(sizes, tile), body, empty)
  return out[:num_rows]


def _tiled_kernels(
  rows: Array, cotangent: Array, sizes: Array, kernels: Array
) -> Array:
  """Gradient of the kernels: rows' transposed times cotangents, by group."""
  tile = tile_size(rows.shape[0], sizes.shape[0])
  padded = jnp.pad(rows, ((0, tile), (0, 0)))
  above = jnp.pad(cotangent, ((0, tile), (0, 0)))

  def body(i: Array, out: Array) -> Array:
    group, first, count = _tile(sizes, tile, i)
    product = products.dot_general(
      _rows_of(padded, first, count, tile),
      jax.lax.dynamic_slice_in_dim(above, first, tile),
      (((0,), (0,)), ((), ())),
    )
    return out.at[group].add(product)

  empty = jnp.zeros(kernels.shape, jnp.float32)
  out = jax.lax.fori_loop(0, _num_tiles(sizes, tile), body, empty)
  return out.astype(kernels.dtype)
