import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.sampling import column_blocks

# Rows, and those of a TPU's tile.
_ROWS = [(1, 1), (3, 1), (6, 2), (12, 4), (16, 8)]
_SIZES = [(20, 1), (256, 1), (257, 3), (1000, 8)]


@functools.partial(jax.jit, static_argnums=1)
def _split(values, platform):
  return column_blocks.split(values, -1.0, platform)


_take = jax.jit(column_blocks.take)


def _values(rows, size):
  return np.arange(rows * size, dtype=np.float32).reshape(rows, size)


@pytest.mark.parametrize(('rows', 'tile'), _ROWS)
@pytest.mark.parametrize(('size', 'num_blocks'), _SIZES)
def test_blocks_hold_the_columns_in_order(rows, tile, size, num_blocks):
  values = _values(rows, size)
  index = np.tile(np.arange(num_blocks), (rows, 1))
  for platform, together in (('tpu', tile), ('cpu', 1), ('gpu', 1)):
    blocks = _split(values, platform)
    assert blocks.shape[:3] == (rows // together, num_blocks, together)
    joined = np.asarray(_take(blocks, index)).reshape(rows, -1)
    np.testing.assert_array_equal(joined[:, :size], values)
    assert (joined[:, size:] == -1.0).all()


@pytest.mark.parametrize(('rows', 'tile'), _ROWS)
def test_each_row_takes_its_own_blocks(rows, tile):
  del tile
  blocks = _split(_values(rows, 1000), 'tpu')
  index = np.random.default_rng(rows).integers(0, 8, (rows, 2))
  got = np.asarray(_take(blocks, index))
  first = np.arange(rows)[:, None] * 1000 + index * 128
  np.testing.assert_array_equal(got[:, :, 0], first)


def test_numbers_per_block_and_per_row():
  values = _values(16, 1000)

  @jax.jit
  def run(values):
    blocks = column_blocks.split(values, -1.0, 'tpu')
    maxima = column_blocks.by_row(jnp.max(blocks, axis=3))
    shifted = blocks - column_blocks.beside(values[:, 0], blocks)
    again = column_blocks.take(shifted, jnp.zeros((16, 1), jnp.int32))[:, 0]
    return maxima, again

  maxima, again = run(values)
  ends = np.minimum(np.arange(1, 9) * 128, 1000) - 1
  np.testing.assert_array_equal(maxima, values[:, ends])
  np.testing.assert_array_equal(again, np.tile(np.arange(128), (16, 1)))
