import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.models import ragged_dot
from tests.support import factories

_SIZES = [
  [5, 0, 40, 3],  # Of several tiles, of none, less than one.
  [0, 0, 0, 48],
  [12, 12, 12, 12],
  [0, 0, 0, 0],
  [7, 0, 0, 1],  # Rows of no group.
]


def _inputs(sizes, dtype=np.float32):
  rng = np.random.default_rng(0)
  rows = rng.standard_normal((48, 6)).astype(dtype)
  kernels = rng.standard_normal((4, 6, 3)).astype(dtype)
  return rows, kernels, jnp.asarray(sizes, jnp.int32)


def _expected(rows, kernels, sizes):
  out, begin = np.zeros((48, 3)), 0
  for kernel, size in zip(kernels, np.asarray(sizes), strict=True):
    end = begin + size
    out[begin:end] = np.asarray(rows[begin:end], np.float64) @ kernel
    begin = end
  return out


@pytest.mark.parametrize('sizes', _SIZES)
@pytest.mark.parametrize('form', ['grouped_dot', '_ragged'])
def test_each_row_meets_the_matrix_of_its_group(sizes, form):
  inputs = _inputs(sizes)
  got = jax.jit(getattr(ragged_dot, form))(*inputs)
  np.testing.assert_allclose(got, _expected(*inputs), atol=1e-5)


@pytest.mark.parametrize('sizes', _SIZES)
def test_gradients_are_those_of_ragged_dot(sizes):
  rows, kernels, sizes = _inputs(sizes)
  weight = np.random.default_rng(1).standard_normal((48, 3))

  def gradient(form):
    def loss(rows, kernels):
      return jnp.sum(form(rows, kernels, sizes) * weight)

    return jax.jit(jax.grad(loss, (0, 1)))(rows, kernels)

  got, expected = gradient(ragged_dot.grouped_dot), gradient(ragged_dot._ragged)
  for mine, theirs in zip(got, expected, strict=True):
    np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_narrow_inputs_are_summed_in_f32():
  rows, kernels, sizes = _inputs(_SIZES[2], jnp.bfloat16)
  got = jax.jit(ragged_dot.grouped_dot)(rows, kernels, sizes)
  assert got.dtype == jnp.bfloat16
  expected = _expected(rows, np.asarray(kernels, np.float64), sizes)
  assert factories.relative_distance(got, expected) < 3e-3


@pytest.mark.parametrize(
  ('num_rows', 'num_groups', 'expected'),
  [(16, 128, 16), (4096, 128, 32), (5000, 128, 64), (10**6, 8, 256)],
)
def test_tiles_are_about_a_group(num_rows, num_groups, expected):
  assert ragged_dot.tile_size(num_rows, num_groups) == expected


@pytest.mark.parametrize('seed', range(3))
def test_no_row_is_multiplied_with_every_matrix(seed):
  """Tiles: at most one a group more than the rows fill."""
  rng = np.random.default_rng(seed)
  sizes = rng.multinomial(4096, rng.dirichlet(np.ones(64)))
  tile = ragged_dot.tile_size(4096, 64)
  count = int(ragged_dot._num_tiles(jnp.asarray(sizes), tile))
  assert 4096 / tile <= count <= 4096 / tile + 64


def test_nothing_is_as_large_as_all_rows_for_all_groups():
  def loss(rows, kernels, sizes):
    return jnp.sum(ragged_dot.grouped_dot(rows, kernels, sizes))

  rows, kernels = jnp.ones((4096, 8)), jnp.ones((64, 8, 8))
  sizes = jnp.full(64, 64, jnp.int32)
  compiled = jax.jit(jax.grad(loss, (0, 1))).lower(rows, kernels, sizes)
  used = compiled.compile().memory_analysis().temp_size_in_bytes
  assert used < rows.nbytes * 16  # All for all would be 64 of them.
