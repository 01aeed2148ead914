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


def _ratio(log_pi, log_mu, ratios):
  np.testing.assert_allclose(ratios, jnp.exp(log_pi - log_mu), rtol=1e-5)
  return jnp.minimum(ratios, 1.2)


def _assert_centre(got, c, log_pi, is_token):
  np.testing.assert_allclose(got.coefficients, c * (1 - is_token), atol=1e-6)
  np.testing.assert_allclose(got.value, (c * log_pi).sum(1), atol=1e-5)
  np.testing.assert_allclose(got.own, (c * is_token).sum(1), atol=1e-6)
  rest = (c * (1 - is_token)).sum(1)
  np.testing.assert_allclose(got.others, rest, atol=1e-6)


def test_an_exact_centre_is_a_sum_over_the_vocabulary():
  shard, chunk, both, anchor, log_pi, log_mu, tokens, _ = _case()
  got = two_policies.centre(
    shard, _ratio, jnp.asarray(tokens), anchor, chunk, both
  )
  c = np.exp(log_mu) * np.minimum(np.exp(log_pi - log_mu), 1.2)
  _assert_centre(got, c, log_pi, np.eye(_SIZE)[tokens])
  assert got.ids is None


def test_a_top_k_centre_is_a_sum_over_the_recorded():
  shard, chunk, _, anchor, log_pi, log_mu, tokens, ids = _case()
  got = two_policies.centre(
    shard, _ratio, jnp.asarray(tokens), anchor, chunk, None
  )
  pi, mu = (np.take_along_axis(np.exp(x), ids, 1) for x in (log_pi, log_mu))
  tails = 1 - mu.sum(1), 1 - pi.sum(1)
  alpha = tails[0] / tails[1] * np.minimum(tails[1] / tails[0], 1.2)
  c = mu * np.minimum(pi / mu, 1.2) - alpha[:, None] * pi
  is_token = ids == tokens[:, None]
  assert is_token.any()
  _assert_centre(got, c, np.log(pi), is_token)
  np.testing.assert_array_equal(got.ids, ids)
  bare = anchor.replace(top_log_probs=None)
  with pytest.raises(ValueError, match='top-K log-probs are needed'):
    two_policies.centre(shard, _ratio, jnp.asarray(tokens), bare, chunk, None)


def test_an_exact_centre_of_vanishing_probabilities_is_finite():
  """Tokens that either policy, or both, holds no f32 probability of."""
  other = jnp.array([[0.0], [1.0], [-300.0], [0.0], [-300.0]])
  head = jnp.array([[0.0], [1.0], [0.0], [-300.0], [-300.0]])
  x, tokens = jnp.ones((1, 1)), jnp.array([1])
  shard = Shard.of(factories.vocabulary_axes(), 5, 5)
  chunk = vocabulary_shard.chunk_stats(
    shard, head, x, tokens, None, 1.0, with_entropy=False
  )
  anchor = TokenStats(log_probs=jnp.zeros(1), hidden=x)
  both = two_policies.distributions(shard, other, anchor, 1.0, chunk, tokens)
  for weight_fn in (
    lambda log_pi, log_mu, ratios: ratios,
    lambda log_pi, log_mu, ratios: jnp.ones_like(ratios),
  ):
    got = two_policies.centre(shard, weight_fn, tokens, anchor, chunk, both)
    for leaf in (got.value, got.own, got.others, got.coefficients):
      assert np.isfinite(leaf).all()
    np.testing.assert_array_equal(got.coefficients[0, [1, 2, 4]], 0.0)
  # c = mu at last, whose log pi is -300 and is taken for -87.
  mu = np.exp([0.0, 1.0, -300.0, 0.0]) / (2 + np.e)
  np.testing.assert_allclose(got.coefficients[0, [0, 3]], mu[[0, 3]], rtol=1e-6)
  assert float(got.value[0]) == pytest.approx(
    mu @ [-np.log(2 + np.e), 1 - np.log(2 + np.e), 0.0, -88], rel=0.02
  )
