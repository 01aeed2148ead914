import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.lm_head import vocabulary_shard
from dppo_jax.lm_head.logit_gradient import Slopes, logit_gradient
from dppo_jax.lm_head.two_policies import Centre
from dppo_jax.lm_head.vocabulary_shard import Shard
from tests.support import factories


@pytest.mark.parametrize('centering', ['off', 'topk', 'exact'])
@pytest.mark.parametrize('entropy_slope', [None, 0.05])
@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float32])
def test_gradients_of_the_logits_sum_to_zero(entropy_slope, dtype, centering):
  """Within a unit in the last place of a, and as in f64 at every column."""
  rng = np.random.default_rng(0)
  head = rng.normal(size=(512, 8)).astype(np.float32)
  scale = rng.uniform(0, 8, (64, 1))
  hidden = (scale * rng.normal(size=(64, 8))).astype(np.float32)
  tokens = np.where(np.arange(64) < 48, (hidden @ head.T).argmax(1), 3)
  slope = rng.uniform(-1, 1, 64).astype(np.float32)
  h = None if entropy_slope is None else np.full(64, entropy_slope, np.float32)
  # The token itself is among the candidates of half of the rows.
  order = rng.random((64, 512))
  order[np.arange(64), tokens] = 1.0
  ids = np.argsort(order, 1)[:, :5].astype(np.int32)
  ids[::2, 2] = tokens[::2]
  pull = 0.3 * rng.uniform(0, 1, 64).astype(np.float32)
  shard = Shard.of(factories.vocabulary_axes(), 512, 512)
  chunk = vocabulary_shard.chunk_stats(
    shard,
    jnp.asarray(head),
    jnp.asarray(hidden),
    jnp.asarray(tokens),
    jnp.asarray(ids),
    1.0,
    with_entropy=h is not None,
  )
  centre, dense = None, np.zeros((64, 512))
  if centering != 'off':
    of_ids = centering == 'topk'
    c = rng.uniform(0, 1, (64, 5 if of_ids else 512)).astype(np.float32)
    c /= c.sum(1, keepdims=True)
    if of_ids:
      np.put_along_axis(dense, ids, c, 1)
    else:
      dense[:] = c
    is_token = (ids if of_ids else np.arange(512)) == tokens[:, None]
    own, others = (np.where(b, c, 0.0) for b in (is_token, ~is_token))
    centre = Centre(
      jnp.zeros(64),
      jnp.asarray(own.sum(1)),
      jnp.asarray(others.sum(1)),
      jnp.asarray(others),
      ids if of_ids else None,
    )
  slopes = Slopes(slope, h, None if centre is None else jnp.asarray(pull))
  parts = logit_gradient(
    shard, chunk, jnp.asarray(tokens), slopes, centre, 1.0, dtype
  )
  assert parts.columns.dtype == dtype
  got = np.asarray(parts.columns, np.float64)
  assert not got[np.arange(64), tokens].any()
  if parts.scale is not None:
    got *= np.asarray(parts.scale, np.float64)[:, None]
  got[np.arange(64), tokens] = parts.own
  logits = np.asarray(chunk.logits, np.float64)
  log_p = logits - logits.max(1, keepdims=True)
  log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
  p = np.exp(log_p)
  expected = slope[:, None] * (np.eye(512)[tokens] - p)
  if h is not None:
    entropy = -(p * log_p).sum(1, keepdims=True)
    expected -= entropy_slope * p * (log_p + entropy)
  expected += pull[:, None] * (dense - p * dense.sum(1, keepdims=True))
  ulp = (np.abs(slope) + (centering != 'off') * 5 * pull) * float(
    jnp.finfo(dtype).eps
  )
  assert (np.abs(got.sum(1)) <= ulp + 1e-7).all()
  size = np.abs(expected).max(1, keepdims=True)
  np.testing.assert_allclose(
    got / size, expected / size, atol=2e-6 + 0.5 * float(jnp.finfo(dtype).eps)
  )


def test_a_slope_that_cancels_leaves_the_candidates_their_pull():
  """a + e sum c = 0: only the K columns and the token have a gradient."""
  head = jnp.asarray(np.random.default_rng(0).normal(size=(16, 4)), jnp.float32)
  tokens, ids = jnp.array([3, 3]), jnp.array([[5, 7], [5, 7]])
  shard = Shard.of(factories.vocabulary_axes(), 16, 16)
  chunk = vocabulary_shard.chunk_stats(
    shard, head, jnp.ones((2, 4)), tokens, ids, 1.0, with_entropy=False
  )
  c = jnp.array([[0.5, 0.25], [0.0, 0.0]])
  centre = Centre(jnp.zeros(2), jnp.zeros(2), jnp.sum(c, 1), c, ids)
  slopes = Slopes(jnp.array([-0.75, 0.0]), None, jnp.ones(2))
  parts = logit_gradient(shard, chunk, tokens, slopes, centre, 1.0, jnp.float32)
  got = np.asarray(parts.columns * parts.scale[:, None])
  want = np.zeros((2, 16))
  want[0, [5, 7]] = 0.5, 0.25
  np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-25)
  np.testing.assert_array_equal(got[1], 0.0)
  np.testing.assert_allclose(parts.own, [-0.75, 0.0], rtol=1e-6)
