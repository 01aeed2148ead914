"""Logits in blocks of columns, without a copy of the logits.

A TPU keeps a matrix in tiles of 8 rows and 128 columns. A block of 128 columns
is a column of tiles: [B / 8, blocks, 8, 128] is a view of [B, V] there, and
[B, blocks, 128] would be a copy in another order.
"""

import math

import jax.numpy as jnp

from dppo_jax.base import Array

# Columns per block: one cache line of sums is enough to find the block at
# V = 152 k, and up to two blocks one level is cheaper.
BLOCK = 128
# Rows of a TPU's tile of 32-bit numbers; a matrix of fewer rows has smaller
# tiles.
_TILE_ROWS = 8


def split(values: Array, fill: float, platform: str) -> Array:
  """Blocks of columns: [B, V] -> [B / g, blocks, g, columns per block], padded.

  Args:
    values: f32 [B, V].
    fill: of the columns that complete the last block.
    platform: g is the rows of a tile on a 'tpu', elsewhere 1.
  """
  rows, size = values.shape
  width = size
  if size > 2 * BLOCK:
    width = BLOCK
    missing = ((0, 0), (0, -size % BLOCK))
    values = jnp.pad(values, missing, constant_values=fill)
  together = math.gcd(rows, _TILE_ROWS) if platform == 'tpu' else 1
  tiles = values.reshape(rows // together, together, -1, width)
  return jnp.swapaxes(tiles, 1, 2)


def by_row(of_blocks: Array) -> Array:
  """One number per block, by row: [B / g, blocks, g] -> [B, blocks]."""
  return jnp.swapaxes(of_blocks, 1, 2).reshape(-1, of_blocks.shape[1])


def beside(of_rows: Array, blocks: Array) -> Array:
  """One number per row, to be broadcast over `blocks`: [B / g, 1, g, 1]."""
  return of_rows.reshape(blocks.shape[0], 1, blocks.shape[2], 1)


def take(blocks: Array, index: Array) -> Array:
  """Some blocks of each row.

  Args:
    blocks: [B / g, blocks, g, columns], of `split`.
    index: i32 [B, n], in range.

  Returns:
    [B, n, columns].
  """
  together = blocks.shape[2]
  row = jnp.arange(index.shape[0])[:, None]
  place = blocks.at[row // together, index, row % together]
  chosen: Array = place.get(mode='promise_in_bounds')
  return chosen
