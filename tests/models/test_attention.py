import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.models import attention, layers
from dppo_jax.models.attention import Segment
from tests.support import factories

attend = jax.jit(attention.attend)

_ROWS, _WIDTH, _HEADS, _KV_HEADS, _HEAD_DIM, _SIZE = 4, 3, 4, 2, 6, 7


def _normal(*shape, seed=0):
  rng = np.random.default_rng((seed, *shape))
  return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def _query():
  return _normal(_ROWS, _WIDTH, _HEADS, _HEAD_DIM)


def _segment(entries=_ROWS, seed=1):
  shape = (entries, _KV_HEADS, _SIZE, _HEAD_DIM)
  rng = np.random.default_rng(seed)
  mask = rng.random((entries, _WIDTH, _SIZE)) < 0.7
  mask[:, :, 0] = True
  return Segment(
    _normal(*shape, seed=seed), _normal(*shape, seed=seed + 100), mask
  )


def _by_loops(query, segment):
  """One row, query and head at a time, in float64."""
  q, keys, values, mask = (np.asarray(a, np.float64) for a in (query, *segment))
  out = np.zeros(q.shape)
  for b, i, h in np.ndindex(*q.shape[:3]):
    kv_head = h // (_HEADS // _KV_HEADS)
    scores = keys[b, kv_head] @ q[b, i, h] / np.sqrt(_HEAD_DIM)
    weights = np.where(mask[b, i] > 0, np.exp(scores), 0.0)
    out[b, i, h] = weights @ values[b, kv_head] / weights.sum()
  return out


def test_one_segment():
  query, segment = _query(), _segment()
  got = attend(query, [segment])
  np.testing.assert_allclose(got, _by_loops(query, segment), atol=1e-6)


def test_two_segments_equal_the_concatenated_one():
  query, one, two = _query(), _segment(seed=1), _segment(seed=2)
  whole = Segment(
    jnp.concatenate([one.keys, two.keys], axis=2),
    jnp.concatenate([one.values, two.values], axis=2),
    np.concatenate([one.mask, two.mask], axis=2),
  )
  np.testing.assert_allclose(
    attend(query, [one, two]), attend(query, [whole]), atol=1e-6
  )


def test_segments_of_different_lengths():
  query, segment = _query(), _segment()
  parts = [
    Segment(
      segment.keys[:, :, a:b], segment.values[:, :, a:b], segment.mask[..., a:b]
    )
    for a, b in ((0, 2), (2, 6), (6, 7))
  ]
  np.testing.assert_allclose(
    attend(query, parts), attend(query, [segment]), atol=1e-6
  )


def test_grouped_queries_equal_repeated_heads():
  query, segment = _query(), _segment()
  repeat = _HEADS // _KV_HEADS
  repeated = segment._replace(
    keys=jnp.repeat(segment.keys, repeat, axis=1),
    values=jnp.repeat(segment.values, repeat, axis=1),
  )
  np.testing.assert_allclose(
    attend(query, [segment]), attend(query, [repeated]), atol=1e-6
  )


def test_shared_segment_equals_repeated_rows():
  query, segment = _query(), _segment(entries=2)
  repeated = Segment(*(jnp.repeat(a, _ROWS // 2, axis=0) for a in segment))
  np.testing.assert_allclose(
    attend(query, [segment]), attend(query, [repeated]), atol=1e-6
  )


def test_broadcast_mask():
  query, segment = _query(), _segment()
  one = segment.mask[:1, :1]
  full = np.broadcast_to(one, segment.mask.shape)
  np.testing.assert_allclose(
    attend(query, [segment._replace(mask=one)]),
    attend(query, [segment._replace(mask=full)]),
    atol=1e-6,
  )


def test_hidden_keys_do_not_matter():
  query, segment = _query(), _segment()
  seen = segment.mask.any(1)[:, None, :, None]
  assert not seen.all()
  other = segment._replace(
    keys=jnp.where(seen, segment.keys, 1e3),
    values=jnp.where(seen, segment.values, 1e3),
  )
  np.testing.assert_array_equal(
    attend(query, [segment]), attend(query, [other])
  )


def test_query_that_sees_nothing_is_finite_with_finite_gradient():
  segment = _segment()._replace(mask=np.zeros((1, 1, _SIZE), bool))

  def total(query):
    return jnp.sum(attend(query, [segment]))

  value, gradient = jax.jit(jax.value_and_grad(total))(_query())
  assert np.isfinite(value)
  assert np.isfinite(gradient).all()


def test_scores_are_f32_in_bfloat16_compute():
  """Scores near 300 apart by less than their bfloat16 spacing of 2."""
  query = jnp.full((1, 1, 1, 4), 2.0, jnp.bfloat16)
  keys = np.full((1, 1, 2, 4), 75.0, np.float32)
  keys[0, 0, 1, 0] = 75.5
  values = jnp.asarray([[[[0.0], [1.0]]]], jnp.bfloat16)
  segment = Segment(
    jnp.asarray(keys, jnp.bfloat16),
    jnp.repeat(values, 4, axis=3),
    np.ones((1, 1, 2), bool),
  )
  got = attend(query, [segment])
  assert got.dtype == jnp.bfloat16
  # Score difference 0.5 * 2 / sqrt(4).
  expected = 1.0 / (1.0 + np.exp(-0.5))
  np.testing.assert_allclose(np.asarray(got, float), expected, rtol=2**-7)


@pytest.mark.parametrize('qk_norm', [False, True])
@pytest.mark.parametrize('qkv_bias', [False, True])
def test_projections(qk_norm, qkv_bias):
  """Bias, then norm by head, then rotation; values are only projected."""
  config = factories.transformer_config(qk_norm=qk_norm, qkv_bias=qkv_bias)
  module = attention.Attention(config)
  params = jax.tree.map(
    lambda leaf: leaf[0], factories.make_params(config)['layers']['attention']
  )
  assert ('query_norm' in params) == qk_norm
  assert ('bias' in params['key']) == qkv_bias
  assert 'bias' not in params['output']
  x = _normal(2, 3, config.d_model)
  angles = layers.rotary_angles(config, jnp.arange(3)[None].repeat(2, 0))

  @jax.jit
  def project(params):
    return module.apply({'params': params}, x, angles, method='project')

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
      expected = layers.rotate(jnp.asarray(expected), angles)
    if name != 'query':
      expected = np.swapaxes(expected, 1, 2)
    np.testing.assert_allclose(value, expected, atol=2e-5)
