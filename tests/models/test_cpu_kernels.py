import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.models import cpu_kernels


def _normal(*shape):
  rng = np.random.default_rng(shape)
  return jnp.asarray(rng.standard_normal(shape), jnp.float32)


@pytest.mark.parametrize('rows', [2, cpu_kernels.FEW, cpu_kernels.FEW + 1])
@pytest.mark.parametrize('outputs', [5, 6])
def test_product_is_that_of_the_transpose(outputs, rows):
  # Positive: a sum near 0 has no relative precision.
  weights, x = jnp.abs(_normal(outputs, 3)), jnp.abs(_normal(rows, 3))
  got = jax.jit(cpu_kernels.product)(weights, x)
  expected = np.asarray(x, np.float64) @ np.asarray(weights, np.float64).T
  np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize('outputs', [1, 2])
def test_product_of_16_bits_is_summed_in_32(outputs):
  weights = jnp.ones((outputs, 300), jnp.bfloat16)
  x = jnp.ones((1, 300), jnp.bfloat16)
  got = jax.jit(cpu_kernels.product)(weights, x)
  # A sum kept in bfloat16 stays at 256, whose next neighbor is 258.
  assert got.dtype == jnp.float32
  assert got.tolist() == [[300.0] * outputs]


def test_many_rows_are_not_turned():
  def compiled(rows):
    program = jax.jit(cpu_kernels.product).lower(
      _normal(6, 3), _normal(rows, 3)
    )
    return program.as_text()

  assert 'optimization_barrier' in compiled(cpu_kernels.FEW)
  assert 'optimization_barrier' not in compiled(cpu_kernels.FEW + 1)


def test_turn_takes_projections_and_leaves_the_rest():
  params = {
    'attention': {
      'query': {'kernel': _normal(6, 2, 3), 'bias': _normal(2, 3)},
      'key': {'kernel': _normal(6, 1, 3)},
      'value': {'kernel': _normal(6, 1, 3) + 1},
      'output': {'kernel': _normal(2, 3, 6)},
      'query_norm': {'scale': _normal(3)},
    },
    'mlp': {'router': {'kernel': _normal(6, 4)}, 'experts': {'gate': 1.0}},
  }
  rest, kernels = cpu_kernels.turn(params)
  into = [
    params['attention'][name]['kernel'].reshape(6, -1).T
    for name in ('query', 'key', 'value')
  ]
  output = params['attention']['output']['kernel']
  np.testing.assert_array_equal(
    kernels['attention']['kernels'], np.concatenate(into)
  )
  np.testing.assert_array_equal(
    kernels['attention']['output']['kernel'], output.reshape(6, 6).T
  )
  assert rest['mlp'] == params['mlp']
  assert set(rest['attention']['query']) == {'bias'}
  assert set(rest['attention']['query_norm']) == {'scale'}
  assert 'kernel' in params['attention']['query']  # The caller's is kept.
