import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.sampling import column_blocks
from dppo_jax.sampling import top_k as top_k_lib


def _both(values, k, platform='cpu'):
  blocks = column_blocks.split(jnp.asarray(values), -jnp.inf, platform)
  maxima = column_blocks.by_row(jnp.max(blocks, axis=3))
  run = jax.jit(top_k_lib.top_k_of_blocks, static_argnums=2)
  return run(blocks, maxima, k), jax.lax.top_k(jnp.asarray(values), k)


@pytest.mark.parametrize('size', [20, 256, 257, 5000, 128 * 40])
@pytest.mark.parametrize('k', [1, 5, 20])
def test_equals_the_top_k_of_everything(size, k):
  values = np.random.default_rng(size + k).normal(size=(7, size))
  got, expected = _both(values.astype(np.float32), k)
  jax.tree.map(np.testing.assert_array_equal, got, tuple(expected))


@pytest.mark.parametrize('platform', ['cpu', 'tpu'])
@pytest.mark.parametrize('levels', [1, 2, 3, 30])
def test_the_first_of_equal_values_is_taken(levels, platform):
  """Few levels: ties within blocks, between them and at the K-th value."""
  rng = np.random.default_rng(levels)
  values = rng.integers(0, levels, (64, 128 * 24)).astype(np.float32)
  # Rare high values put blocks of high index among the chosen ones.
  values[rng.random(values.shape) < 2e-3] += 5
  got, expected = _both(values, 8, platform)
  jax.tree.map(np.testing.assert_array_equal, got, tuple(expected))


@pytest.mark.parametrize('size', [128 * 24, 12])
def test_nothing_but_infinities(size):
  got, expected = _both(np.full((2, size), -np.inf, np.float32), 8)
  jax.tree.map(np.testing.assert_array_equal, got, tuple(expected))


@pytest.mark.parametrize('k', [1, 6, 7, 11, 12])
def test_of_few_columns_the_first_of_equal_values_is_taken(k):
  rng = np.random.default_rng(k)
  values = rng.integers(-3, 3, (64, 12)).astype(np.float32)
  values[rng.random(values.shape) < 0.1] = -np.inf
  got, expected = _both(values, k)
  jax.tree.map(np.testing.assert_array_equal, got, tuple(expected))


def test_most_of_few_columns_are_not_sorted():
  def compiled(k):
    run = jax.jit(top_k_lib.top_k_of_blocks, static_argnums=2)
    blocks = jax.ShapeDtypeStruct((2, 1, 1, 20), jnp.float32)
    maxima = jax.ShapeDtypeStruct((2, 1), jnp.float32)
    return run.lower(blocks, maxima, k).compile().as_text()

  assert ' sort(' in compiled(2) or 'TopK' in compiled(2)
  assert ' sort(' not in compiled(20)
  assert 'TopK' not in compiled(20)


def test_only_blocks_with_a_large_maximum_are_sorted():
  """No sort is as wide as the vocabulary."""
  size = 128 * 400
  blocks = jax.ShapeDtypeStruct((2, 400, 1, 128), jnp.float32)
  maxima = jax.ShapeDtypeStruct((2, 400), jnp.float32)
  run = jax.jit(top_k_lib.top_k_of_blocks, static_argnums=2)
  text = run.lower(blocks, maxima, 8).compile().as_text()
  assert f'f32[2,{size}]' not in text
