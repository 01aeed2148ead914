import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.models import cpu_bfloat16
from dppo_jax.runtime.programs import state
from tests.support import runs


def _params(dtype):
  kernel = jnp.arange(6.0, dtype=dtype).reshape(2, 3)
  return {
    'embedding': kernel,
    'layers': {
      'attention': {'query': {'kernel': kernel, 'bias': kernel}},
      'mlp': {'experts': {'gate': {'kernel': kernel}}},
    },
  }


def test_kernels_of_layers_become_bits_and_come_back():
  params = _params(jnp.bfloat16)
  packed = cpu_bfloat16.pack(params, 'cpu')
  kernel = packed['layers']['attention']['query']['kernel']
  assert kernel.dtype == jnp.uint16
  np.testing.assert_array_equal(
    cpu_bfloat16.unpack(kernel), params['embedding']
  )
  packed['layers']['attention']['query']['kernel'] = params['embedding']
  assert {x.dtype for x in jax.tree.leaves(packed)} == {jnp.dtype('bfloat16')}


def test_wide_weights_stay_as_they_are():
  params = _params(jnp.float32)
  packed = cpu_bfloat16.pack(params, 'cpu')
  assert jax.tree.all(jax.tree.map(lambda a, b: a is b, packed, params))
  assert cpu_bfloat16.unpack(params['embedding']) is params['embedding']


def test_elsewhere_nothing_is_packed(monkeypatch):
  weights = jnp.ones(3, jnp.bfloat16)
  assert cpu_bfloat16.bits(weights, 'gpu') is weights
  assert cpu_bfloat16.platform_of(None) == 'cpu'
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert cpu_bfloat16.platform_of(None) == 'gpu'


def test_the_devices_of_the_mesh_count_not_those_that_trace(monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
  mesh = parallel.make_mesh(1, 1, 1, jax.devices()[:1])
  assert cpu_bfloat16.platform_of(mesh) == 'cpu'


def test_what_is_packed_cannot_be_trained_in_silence():
  weights = jnp.ones(3, jnp.bfloat16)

  def loss(weights):
    wide = cpu_bfloat16.unpack(cpu_bfloat16.bits(weights, 'cpu')).astype(
      jnp.float32
    )
    return jnp.sum(wide)

  with pytest.raises(ValueError, match='bfloat16 parameters are frozen'):
    jax.grad(loss)(weights)
  # What stands beside them can be.
  gradient = jax.grad(lambda x: x * loss(weights))(2.0)
  assert gradient == 3.0


def test_a_narrow_policy_is_the_wide_one_with_rounded_weights():
  experiment = runs.experiment()
  parts = runs.parts()
  wide = jax.tree.map(
    lambda leaf: jax.random.normal(jax.random.PRNGKey(0), leaf.shape) * 0.3,
    state.abstract_params(experiment),
  )
  narrow_params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), wide)
  rounded = jax.tree.map(lambda x: x.astype(jnp.float32), narrow_params)
  tokens = jnp.array([[3, 4, 5]])
  mask = jnp.ones((1, 3), bool)
  np.testing.assert_array_equal(
    parts.policy.apply(narrow_params, tokens, mask),
    parts.policy.apply(rounded, tokens, mask),
  )


def test_no_copy_of_all_layers_is_widened():
  parts = runs.parts(runs.config(model__num_layers=16))
  experiment = runs.experiment(runs.config(model__num_layers=16))
  params = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16),
    state.abstract_params(experiment),
  )
  tokens = jax.ShapeDtypeStruct((1, 3), jnp.int32)
  mask = jax.ShapeDtypeStruct((1, 3), bool)
  compiled = jax.jit(parts.policy.apply).lower(params, tokens, mask).compile()
  assert 'f32[16,16,32]' not in compiled.as_text()  # 16 gates, [D, d_ff].
