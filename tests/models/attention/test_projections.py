"""Projections around attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.models import layers
from dppo_jax.models.attention import projections
from tests.support import factories


@pytest.mark.parametrize('qk_norm', [False, True])
@pytest.mark.parametrize('qkv_bias', [False, True])
def test_projections(qk_norm, qkv_bias):
  """Bias, then norm by head, then rotation; values are only projected."""
  config = factories.transformer_config(qk_norm=qk_norm, qkv_bias=qkv_bias)
  module = projections.Attention(config)
  params = jax.tree.map(
    lambda leaf: leaf[0], factories.make_params(config)['layers']['attention']
  )
  assert ('query_norm' in params) == qk_norm
  assert ('bias' in params['key']) == qkv_bias
  assert 'bias' not in params['output']
  x = jnp.asarray(
    np.random.default_rng(0).standard_normal((2, 3, config.d_model)),
    jnp.float32,
  )
  rotary = layers.rotary_factors(config, jnp.arange(3)[None].repeat(2, 0))

  @jax.jit
  def project(params):
    return module.apply({'params': params}, x, rotary, method='project')

  got = project(params)

  for name, value in zip(('query', 'key', 'value'), got, strict=True):
    expected = np.einsum('bsd,dhk->bshk', x, params[name]['kernel'])
    if qkv_bias:
      expected = expected + params[name]['bias']
    if name != 'value':
      if qk_norm:
        square = (expected**2).mean(-1, keepdims=True)
        expected = expected / np.sqrt(square + config.norm_epsilon)
        expected = expected * params[f'{name}_norm']['scale']
      expected = layers.rotate(jnp.asarray(expected), rotary)
    if name != 'query':
      expected = np.swapaxes(expected, 1, 2)
    np.testing.assert_allclose(value, expected, atol=2e-5)
