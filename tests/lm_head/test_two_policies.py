import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import TokenStats
from dppo_jax.lm_head import two_policies, vocabulary_shard
from dppo_jax.lm_head.vocabulary_shard import Shard
from dppo_jax.ops import divergences
from tests.support import factories

_SIZE = 20


def _log_softmax(logits):
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def _case():
  rng = np.random.default_rng(0)
  head, x = rng.normal(size=(_SIZE, 4)), rng.normal(size=(6, 4))
  other = head + 0.3 * rng.normal(size=head.shape)
  tokens = rng.integers(0, _SIZE, 6)
  log_pi, log_mu = (
    _log_softmax(x @ head.T / 0.7),
    _log_softmax(x @ other.T / 0.7),
  )
  ids = np.argsort(-log_mu, 1)[:, :3]
  shard = Shard.of(factories.vocabulary_axes(), _SIZE, _SIZE)

  def f32(array):
    return jnp.asarray(array, jnp.float32)

  chunk = vocabulary_shard.chunk_stats(
    shard,
    f32(head),
    f32(x),
    jnp.asarray(tokens),
    jnp.asarray(ids),
    0.7,
    with_entropy=False,
  )
  both = two_policies.distributions(
    shard,
    f32(other),
    TokenStats(log_probs=jnp.zeros(6), hidden=f32(x)),
    0.7,
    chunk,
    jnp.asarray(tokens),
  )
  rows = np.arange(6)
  anchor = TokenStats(
    log_probs=f32(log_mu[rows, tokens]),
    top_log_probs=f32(np.take_along_axis(log_mu, ids, 1)),
  )
  return shard, chunk, both, anchor, log_pi, log_mu, tokens, ids


def test_both_distributions_are_those_of_the_logits():
  _, _, both, _, log_pi, log_mu, *_ = _case()
  np.testing.assert_allclose(both.pi, np.exp(log_pi), atol=1e-6)
  np.testing.assert_allclose(both.mu, np.exp(log_mu), atol=1e-6)
  np.testing.assert_allclose(both.log_ratio, log_mu - log_pi, atol=2e-5)


@pytest.mark.parametrize('name', ['exact_tv', 'exact_kl'])
def test_the_rate_is_summed_beside_the_divergence(name):
  shard, chunk, both, anchor, log_pi, log_mu, tokens, _ = _case()
  row = divergences.DIVERGENCES[name]
  moved, sums = two_policies.measure(
    shard, row.integrand, row.rate, both, anchor, chunk
  )
  pi, mu = np.exp(log_pi), np.exp(log_mu)
  rows = np.arange(6)
  step = np.eye(_SIZE)[tokens] - pi
  if name == 'exact_kl':
    divergence = (mu * (log_mu - log_pi)).sum(1)
    rate = (pi - mu)[rows, tokens] + (pi * (mu - pi)).sum(1)
    assert len(sums) == 1
  else:
    divergence = 0.5 * np.abs(mu - pi).sum(1)
    inner = step - (pi * step).sum(1, keepdims=True)
    rate = 0.5 * (np.sign(pi - mu) * pi * inner).sum(1)
    assert len(sums) == 3
  np.testing.assert_allclose(moved.divergence, divergence, atol=1e-6)
  np.testing.assert_allclose(moved.rate, rate, atol=1e-6)
  bare, nothing = two_policies.measure(
    shard, row.integrand, None, both, anchor, chunk
  )
  np.testing.assert_array_equal(bare.divergence, moved.divergence)
  assert bare.rate is None
  assert nothing == ()


def _ratio(log_pi, log_mu):
  return jnp.minimum(jnp.exp(log_pi - log_mu), 1.2)


def test_an_exact_centre_is_a_sum_over_the_vocabulary():
  shard, chunk, both, anchor, log_pi, log_mu, *_ = _case()
  got = two_policies.centre(shard, _ratio, anchor, chunk, both)
  c = np.exp(log_mu) * np.minimum(np.exp(log_pi - log_mu), 1.2)
  np.testing.assert_allclose(got.coefficients, c, atol=1e-6)
  np.testing.assert_allclose(got.value, (c * log_pi).sum(1), atol=1e-5)
  np.testing.assert_allclose(got.total, c.sum(1), atol=1e-6)
  assert got.ids is None


def test_a_top_k_centre_is_a_sum_over_the_recorded():
  shard, chunk, _, anchor, log_pi, log_mu, _, ids = _case()
  got = two_policies.centre(shard, _ratio, anchor, chunk, None)
  pi, mu = (np.take_along_axis(np.exp(x), ids, 1) for x in (log_pi, log_mu))
  tails = 1 - mu.sum(1), 1 - pi.sum(1)
  alpha = tails[0] / tails[1] * np.minimum(tails[1] / tails[0], 1.2)
  c = mu * np.minimum(pi / mu, 1.2) - alpha[:, None] * pi
  np.testing.assert_allclose(got.coefficients, c, atol=1e-6)
  np.testing.assert_allclose(got.value, (c * np.log(pi)).sum(1), atol=1e-5)
  np.testing.assert_array_equal(got.ids, ids)
  bare = anchor.replace(top_log_probs=None)
  with pytest.raises(ValueError, match='top-K log-probs are needed'):
    two_policies.centre(shard, _ratio, bare, chunk, None)
