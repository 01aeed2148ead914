import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.models import layers
from tests.support import factories

_RNG = np.random.default_rng(0)
_X = _RNG.standard_normal((2, 3, 16)).astype(np.float32)


def _init(module, x, seed=1):
  """Parameters of a module, all of them random: plain numpy arrays."""
  shapes = jax.eval_shape(module.init, jax.random.PRNGKey(0), x)['params']
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32),
    nn.unbox(shapes),
  )


def _apply(module, params, x):
  return jax.jit(module.apply)({'params': params}, x)


def _frequencies(config):
  """f_i in float64, llama3 by its three cases of the wavelength."""
  frequencies = []
  for i in range(config.head_dim // 2):
    f = config.rope_theta ** (-2.0 * i / config.head_dim)
    wavelength = 2.0 * math.pi / f
    if config.rope_scaling == 'linear':
      f = f / config.rope_factor
    if config.rope_scaling == 'llama3':
      longest = config.rope_original_length / config.rope_low_frequency_factor
      kept = config.rope_original_length / config.rope_high_frequency_factor
      if wavelength > longest:
        f = f / config.rope_factor
      elif wavelength > kept:
        smooth = (
          config.rope_original_length / wavelength
          - config.rope_low_frequency_factor
        ) / (
          config.rope_high_frequency_factor - config.rope_low_frequency_factor
        )
        f = (1.0 - smooth) * f / config.rope_factor + smooth * f
    frequencies.append(f)
  return np.array(frequencies)


@pytest.mark.parametrize('scaling', ['none', 'linear', 'llama3'])
def test_rotary_angles(scaling):
  config = factories.transformer_config(
    head_dim=16,
    rope_theta=1000.0,
    rope_scaling=scaling,
    rope_factor=8.0,
    rope_low_frequency_factor=1.0,
    rope_high_frequency_factor=4.0,
    rope_original_length=128,
  )
  positions = np.array([[0, 1, 2, 500], [7, 31, 127, 1000]], np.int32)
  expected = positions[..., None] * _frequencies(config)
  got = layers.rotary_angles(config, jnp.asarray(positions))
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, expected, rtol=2e-6)


def test_llama3_case_covers_all_three_regions():
  plain = factories.transformer_config(head_dim=16, rope_theta=1000.0)
  wavelengths = 2.0 * np.pi / _frequencies(plain)
  assert (wavelengths < 128 / 4).any()
  assert ((wavelengths > 128 / 4) & (wavelengths < 128)).any()
  assert (wavelengths > 128).any()


def test_rotation_keeps_norms_and_turns_pairs():
  config = factories.transformer_config()
  x = _RNG.standard_normal((1, 4, 2, config.head_dim)).astype(np.float32)
  positions = jnp.arange(4)[None]
  angles = layers.rotary_angles(config, positions)
  factors = layers.rotary_factors(config, positions)
  got = np.asarray(layers.rotate(jnp.asarray(x), factors))
  half = config.head_dim // 2
  as_complex = x[..., :half] + 1j * x[..., half:]
  turned = as_complex * np.exp(1j * np.asarray(angles, float))[:, :, None]
  np.testing.assert_allclose(got[..., :half], turned.real, atol=1e-6)
  np.testing.assert_allclose(got[..., half:], turned.imag, atol=1e-6)
  np.testing.assert_allclose(
    np.linalg.norm(got, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-6
  )


def test_rotated_products_depend_on_distance_only():
  config = factories.transformer_config()
  query, key = _RNG.standard_normal((2, config.head_dim)).astype(np.float32)

  def product(query_position, key_position):
    positions = jnp.array([[query_position, key_position]])
    pair = jnp.asarray(np.stack([query, key])[None, :, None])
    turned = layers.rotate(pair, layers.rotary_factors(config, positions))
    return float(jnp.sum(turned[0, 0, 0] * turned[0, 1, 0]))

  near = product(5, 2)
  assert product(103, 100) == pytest.approx(near, abs=1e-4)
  assert product(3, 0) == pytest.approx(near, abs=1e-5)
  assert product(0, 3) != pytest.approx(near, abs=1e-2)
  assert product(5, 4) != pytest.approx(near, abs=1e-2)


def test_rms_norm():
  config = factories.transformer_config(norm_epsilon=0.1)
  params = _init(layers.RMSNorm(config), _X)
  got = _apply(layers.RMSNorm(config), params, _X)
  x = _X.astype(np.float64)
  expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.1)
  np.testing.assert_allclose(got, expected * params['scale'], rtol=2e-6)


def test_rms_norm_is_f32_inside():
  """Squares of 1e20 overflow f32, those of 300 need more than bfloat16."""
  config = factories.transformer_config(dtype='bfloat16')
  x = jnp.asarray(300.0 * _X, jnp.bfloat16)
  params = _init(layers.RMSNorm(config), x)
  got = _apply(layers.RMSNorm(config), params, x)
  assert got.dtype == jnp.bfloat16
  x = np.asarray(x, np.float64)
  expected = x / np.sqrt((x**2).mean(-1, keepdims=True)) * params['scale']
  # One rounding, that of the result.
  np.testing.assert_allclose(np.asarray(got, float), expected, rtol=2**-8)


def test_projection_sums_over_all_leading_axes():
  config = factories.transformer_config()
  module = layers.Projection(
    config, [(2, 'heads'), (8, 'head_dim')], [(3, 'a'), (5, 'b')], True
  )
  x = _X.reshape(2, 3, 2, 8)
  params = _init(module, x)
  got = _apply(module, params, x)
  expected = np.einsum('bshd,hdac->bsac', x, params['kernel']) + params['bias']
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_projection_starts_as_configured():
  config = factories.transformer_config(init_scale=0.05)
  axes = [(16, 'embed')], [(4, 'heads'), (64, 'head_dim')]
  module = layers.Projection(config, *axes, use_bias=True)
  params = jax.jit(module.init)(jax.random.PRNGKey(0), _X)['params']
  assert params['kernel'].names == ('embed', 'heads', 'head_dim')
  assert float(params['kernel'].value.std()) == pytest.approx(0.05, rel=0.05)
  assert params['bias'].names == ('heads', 'head_dim')
  assert not params['bias'].value.any()
  assert (
    'bias'
    not in layers.Projection(config, *axes).init(jax.random.PRNGKey(0), _X)[
      'params'
    ]
  )


def test_feed_forward_is_swiglu():
  config = factories.transformer_config()
  params = _init(layers.FeedForward(config), _X)
  got = _apply(layers.FeedForward(config), params, _X)
  gate = _X @ params['gate']['kernel']
  up = _X @ params['up']['kernel']
  silu = gate / (1.0 + np.exp(-gate))
  expected = (silu * up) @ params['down']['kernel']
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)
