"""Rates and weights of candidates, against f64 and published values."""

import dataclasses
import pathlib

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import Movement, TokenStats
from dppo_jax.learner import movement
from dppo_jax.learner.loss_config import Context
from dppo_jax.ops import trust_regions
from dppo_jax.ops.log_probs import token_stats
from dppo_jax.ops.ratios import ratio
from tests.support import factories
from tests.support.examples import examples

_GOLDEN = pathlib.Path(__file__).parents[1] / 'testdata/golden_successors'


def _config(divergence, **overrides):
  bounds = dataclasses.replace(factories.bounds(), direction='predictive')
  return factories.loss_config(
    divergence=divergence, **{'bounds': bounds, **overrides}
  )


@jax.jit
def _stats(logits, tokens, ids):
  return token_stats(
    logits, tokens, top_ids=ids, temperature=1.0, with_entropy=False
  )


_measure = jax.jit(movement.measure, static_argnums=0)


@jax.jit
def _certify(delta, *args):
  """(lower bound, where it decides nothing); delta is data."""
  config = factories.loss_config(
    divergence='certified_tv',
    bounds=factories.bounds(delta_low=9.0, delta_high=delta),
  )
  return movement.certify(config, *args)


def _case(k, size=11, shape=(3, 5)):
  rng = np.random.default_rng(0)
  mu = 2.0 * rng.normal(size=(*shape, size))
  pi = mu + 0.5 * rng.normal(size=mu.shape)
  tokens = rng.integers(0, size, shape)
  return mu, pi, tokens, np.argsort(-mu, -1)[..., :k]


@pytest.mark.parametrize('kind', ['tv', 'kl'])
def test_the_rate_is_the_slope_of_the_divergence(kind):
  """dD / d eta of z + eta (onehot(y) - pi), by central differences in f64."""
  with jax.enable_x64(True):
    mu, pi, tokens, ids = _case(11)
    config = _config(f'exact_{kind}')
    anchor = _stats(mu, tokens, ids)
    step = np.eye(11)[tokens] - np.asarray(jax.nn.softmax(pi))

    def measured(eta):
      current = _stats(pi + eta * step, tokens, ids)
      return _measure(config, tokens, anchor, current)[0]

    got = measured(0.0).rate
    eta = 1e-5
    slope = measured(eta).divergence - measured(-eta).divergence
    slope = np.asarray(slope)
  assert (np.asarray(got) < 0).any()
  np.testing.assert_allclose(got, slope / (2 * eta), atol=1e-8)


@pytest.mark.parametrize('kind', ['tv', 'kl'])
@pytest.mark.parametrize('tail', ['aggregated', 'uniform'])
def test_an_estimate_with_nothing_left_over_is_exact(kind, tail):
  """All but one token recorded: the rest is that token."""
  with jax.enable_x64(True):
    mu, pi, tokens, ids = _case(10)
    estimate, exact = (
      _measure(
        _config(name, predictive_tail=tail, vocab_size=11),
        jnp.asarray(tokens),
        _stats(mu, tokens, of),
        _stats(pi, tokens, of),
      )[0].rate
      for name, of in ((f'topk_{kind}', ids), (f'exact_{kind}', _case(11)[3]))
    )
  # The rest is floored at 2**-20.
  np.testing.assert_allclose(estimate, exact, atol=2e-6)


@pytest.mark.parametrize('name', ['small_31', 'peaked_31'])
@pytest.mark.parametrize('tail', ['aggregated', 'uniform'])
def test_estimates_are_those_derived_elsewhere(name, tail):
  golden = np.load(_GOLDEN / f'{name}.npz', allow_pickle=False)
  mu, pi = golden['mu_logits'], golden['pi_logits']
  tokens, ids = golden['tokens'], golden['topk_ids']
  size = mu.shape[-1]
  config = _config('topk_kl', predictive_tail=tail, vocab_size=size)
  stats = _stats(mu, tokens, ids), _stats(pi, tokens, ids)
  got, _ = _measure(config, tokens, *stats)
  want = golden[f'predictive/direction/{tail}_tail']
  np.testing.assert_allclose(got.rate, want, atol=1e-6)
  replaced = dataclasses.replace(config, top_k_set='replace_kth')
  other, _ = _measure(replaced, tokens, *stats)
  assert np.abs(np.asarray(other.rate - got.rate)).max() > 1e-5


def test_the_rate_of_two_points_is_the_direction_of_the_token():
  with pytest.raises(ValueError, match="on 'binary_kl' is 'away'"):
    movement.rate_of(_config('binary_kl'))
  away = factories.loss_config(divergence='binary_kl')
  assert movement.rate_of(away) is None


def test_hidden_states_are_kept_for_whole_distributions():
  kept = {
    (divergence, centering): movement.keeps_hidden(
      factories.loss_config(divergence=divergence, centering=centering)
    )
    for divergence in ('binary_tv', 'topk_kl', 'exact_tv')
    for centering in ('off', 'topk', 'exact')
  }
  assert {pair for pair, keeps in kept.items() if keeps} == {
    ('binary_tv', 'exact'),
    ('topk_kl', 'exact'),
    ('exact_tv', 'off'),
    ('exact_tv', 'topk'),
    ('exact_tv', 'exact'),
  }


@given(st.integers(0, 2**31), st.sampled_from([1, 4, 11]), st.floats(0.0, 0.6))
@examples(25)
def test_certified_decisions_never_contradict_the_exact_one(seed, k, delta):
  rng = np.random.default_rng(seed)
  mu = rng.uniform(0.2, 4) * rng.normal(size=(4, 6, 11))
  pi = mu + rng.uniform(0, 1) * rng.normal(size=mu.shape)
  tokens = rng.integers(0, 11, (4, 6))
  ids = np.argsort(-mu, -1)[..., :k]
  context = _context(tokens.shape, 1.0)
  anchor, current = _stats(mu, tokens, ids), _stats(pi, tokens, ids)
  lower, undecided = jax.device_get(
    _certify(delta, context, tokens, anchor, current)
  )
  p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (mu, pi))
  exact = 0.5 * np.abs(p - q).sum(-1)
  decided = ~np.asarray(undecided)
  assert ((lower > delta) == (exact > delta))[decided].all()
  assert (lower <= exact + 1e-6).all()
  if k == 11:  # Nothing is left over.
    assert decided[np.abs(exact - delta) > 1e-5].all()
  masked = dataclasses.replace(context, mask=~context.mask)
  none = _certify(delta, masked, tokens, anchor, current)[1]
  assert not np.asarray(none).any()


def test_a_certificate_is_of_a_bound_on_single_tokens():
  assert movement.certify_fn(factories.loss_config()) is None
  certified = dict(divergence='certified_tv')
  assert movement.certify_fn(factories.loss_config(**certified)) is not None
  with pytest.raises(ValueError, match="rule 'cppo' asks for more"):
    movement.certify_fn(factories.loss_config(rule='cppo', **certified))
  with pytest.raises(ValueError, match="'certified_tv' measures some"):
    movement.rate_of(_config('certified_tv'))


def _context(shape, advantage):
  def full(value):
    return np.full(shape, value, np.float32)

  return Context(
    weights=full(1.0),
    mask=full(1.0) > 0,
    advantages=full(advantage),
    rollout_log_probs=full(-1.0),
    anchor_log_probs=full(-1.0),
    reference_log_probs=None,
  )


@pytest.mark.parametrize('divergence', ['binary_tv', 'topk_tv', 'topk_kl'])
@pytest.mark.parametrize('direction', ['away', 'predictive'])
@pytest.mark.parametrize('advantage', [-1.0, 2.0])
def test_a_candidate_is_decided_as_if_it_had_been_sampled(
  divergence, direction, advantage
):
  if divergence == 'binary_tv' and direction == 'predictive':
    return
  mu, pi, _, ids = _case(4)
  tokens = ids[..., 1]  # One of the K, so that the atoms are the same for all.
  bounds = dataclasses.replace(
    factories.bounds(delta_low=0.03, delta_high=0.04), direction=direction
  )
  config = factories.loss_config(
    divergence=divergence,
    bounds=bounds,
    centering='topk',
    centering_mask='candidate',
    ratio_cap=1.1,
  )
  anchor, current = _stats(mu, tokens, ids), _stats(pi, tokens, ids)
  context = _context(tokens.shape, advantage)
  moved, sums = movement.measure(config, jnp.asarray(tokens), anchor, current)
  weigh = movement.candidate_weights(config, context, moved, sums)
  log_pi, log_mu = current.top_log_probs, anchor.top_log_probs
  got = np.asarray(weigh(log_pi, log_mu, ratio(log_pi, log_mu)))
  assert got.shape == (*tokens.shape, 4)
  kept = []
  for k in range(4):
    sampled = jnp.asarray(ids[..., k])
    a, c = _stats(mu, sampled, ids), _stats(pi, sampled, ids)
    own, _ = _measure(config, sampled, a, c)
    signals = trust_regions.Signals(
      advantages=context.advantages,
      log_probs=c.log_probs,
      anchor_log_probs=a.log_probs,
      divergence=own.divergence,
      mask=context.mask,
      rate=own.rate,
    )
    keep = trust_regions.keep_weights('divergence', signals, bounds)
    r = np.minimum(np.exp(c.log_probs - a.log_probs), 1.1)
    np.testing.assert_allclose(got[..., k], keep * r, rtol=1e-5)
    kept.append(np.asarray(keep))
  assert 0 < np.mean(kept) < 1


def test_without_masks_a_candidate_has_its_importance_weight():
  config = factories.loss_config(centering='topk', importance='none')
  context = _context((1,), 1.0)
  zero = Movement(divergence=jnp.zeros(1))
  weigh = movement.candidate_weights(config, context, zero, ())
  log_pi, log_mu = (
    jnp.log(jnp.array([[0.5, 0.1]])),
    jnp.log(jnp.array([[0.1, 0.2]])),
  )
  ratios = ratio(log_pi, log_mu)
  np.testing.assert_array_equal(weigh(log_pi, log_mu, ratios), 1.0)
  capped = dataclasses.replace(config, importance='token', ratio_cap=3.0)
  weigh = movement.candidate_weights(capped, context, zero, ())
  got = weigh(log_pi, log_mu, ratios)
  np.testing.assert_allclose(got, [[3.0, 0.5]], rtol=1e-6)


def test_a_measure_needs_no_rate_unless_it_is_read():
  mu, pi, tokens, ids = _case(4)
  config = factories.loss_config(divergence='topk_kl')
  stats = _stats(mu, tokens, ids), _stats(pi, tokens, ids)
  moved, sums = movement.measure(config, jnp.asarray(tokens), *stats)
  assert moved.rate is None
  assert sums == ()
  assert isinstance(stats[0], TokenStats)
