"""Meters against f64 sums over the vocabulary, and values worked by hand."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import Movement, TokenStats
from dppo_jax.learner import meters
from dppo_jax.learner.loss_config import Context
from tests.support import factories

# Five tokens; H of the sampler are the first three.
_MU = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
_PI = np.array([0.6, 0.1, 0.15, 0.05, 0.10])


def _stats(law, token, k=3):
  return TokenStats(
    log_probs=jnp.log(jnp.array([law[token]])),
    top_ids=jnp.arange(k)[None],
    top_log_probs=jnp.log(jnp.asarray(law[None, :k])),
  )


def _measure(token=0, advantage=1.0, pi=_PI, k=3, **overrides):
  config = factories.loss_config(**overrides)
  one = jnp.ones(1)
  mu = _stats(_MU, token, k)
  context = Context(
    weights=one,
    mask=one > 0,
    advantages=advantage * one,
    rollout_log_probs=mu.log_probs,
    anchor_log_probs=mu.log_probs,
    reference_log_probs=None,
  )
  found = meters.measure(
    config,
    context,
    jnp.array([token]),
    mu,
    _stats(pi, token, k),
    Movement(divergence=one),
    (),
  )
  assert tuple(found) == meters.names(config)
  return {name: float(value[0]) for name, value in found.items()}


def test_drift_is_that_of_centering():
  found = _measure(ratio_cap=1.2, rule='none')
  mu, pi = _MU[:3], _PI[:3]
  rho = (1 - mu.sum()) / (1 - pi.sum())
  alpha = rho * min(1 / rho, 1.2)
  c = mu * np.minimum(pi / mu, 1.2) - alpha * pi
  assert found['drift/coefficient_sum'] == pytest.approx(c.sum(), abs=1e-6)
  assert found['drift/coefficient_abs'] == pytest.approx(abs(c).sum(), abs=1e-6)
  assert found['drift/topk_mass'] == pytest.approx(0.85)
  # Neither an exact weight nor equal policies have a mean to take off.
  free = dict(rule='none')
  for still in (_measure(**free), _measure(pi=_MU, ratio_cap=1.2, **free)):
    assert still['drift/coefficient_abs'] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize('centering', ['off', 'topk'])
def test_a_mask_is_a_part_of_the_drift_unless_centering_leaves_it(centering):
  """Beyond .1 in both: with A > 0 token 0 is masked, 1 moves back."""
  found = _measure(divergence='binary_tv', centering=centering)
  pi = _PI[:3]
  keep = np.array([0.0 if centering == 'off' else 1.0, 1.0, 1.0])
  # The tail moves by the ratio of two equal masses: nothing is masked.
  c = keep * pi - pi
  assert found['drift/coefficient_sum'] == pytest.approx(c.sum(), abs=1e-6)
  assert found['drift/coefficient_abs'] == pytest.approx(abs(c).sum(), abs=1e-6)
  sequence = _measure(divergence='binary_tv', rule='trm_mean')
  assert sequence['drift/coefficient_abs'] == pytest.approx(0, abs=1e-6)


def _slope(token, kind, eta=1e-6):
  """dD of a step on the logits of _PI, by differences in f64."""
  step = np.eye(5)[token] - _PI

  def divergence(eta):
    pi = _PI * np.exp(eta * step)
    pi /= pi.sum()
    if kind == 'tv':
      return 0.5 * np.abs(_MU - pi).sum()
    return (_MU * np.log(_MU / pi)).sum()

  return divergence(eta) - divergence(-eta)


@pytest.mark.parametrize('kind', ['tv', 'kl'])
@pytest.mark.parametrize('advantage', [1.0, -1.0])
def test_directions_disagree_where_the_slope_says_so(kind, advantage):
  found = []
  for token in range(5):
    got = _measure(token, advantage, k=4, divergence=f'topk_{kind}')
    moved = _PI[token] - _MU[token]
    slope = _slope(token, kind)
    differ = (advantage * slope > 0) != (advantage * moved > 0)
    assert got['direction/disagree'] == differ, token
    found.append(differ)
  assert any(found)
  assert not all(found)


def test_a_token_that_gains_nothing_has_no_direction():
  for still in (_measure(4, 0.0), _measure(4, pi=_MU * (1 + 1e-9))):
    assert still['direction/disagree'] == 0


@pytest.mark.parametrize(
  ('delta', 'decided'), [(0.1, 1), (0.22, 0), (0.26, 0), (0.36, 1)]
)
def test_a_bound_decides_outside_the_interval(delta, decided):
  """Top-3 TV is .2; .15 on either side are left over: [.2, .35]."""
  bounds = factories.bounds(delta_low=0.9, delta_high=delta)
  found = _measure(bounds=bounds)
  assert found['certificate/decided'] == decided
  assert _measure(advantage=-1.0, bounds=bounds)['certificate/decided'] == 1


def test_names_follow_the_loss():
  def names(**overrides):
    return meters.names(factories.loss_config(**overrides))

  every = names()
  assert len(every) == 5
  decided = 'certificate/decided'
  assert set(names(divergence='topk_kl')) == set(every) - {decided}
  assert set(names(rule='ratio_clip')) == set(every) - {decided}
  assert decided in names(rule='cppo')
  assert not [n for n in names(anchor='recomputed') if n.startswith('drift')]


def test_a_drift_needs_recorded_log_probs():
  bare = dataclasses.replace(_stats(_MU, 0), top_log_probs=None)
  with pytest.raises(ValueError, match=r'sampling\.top_k'):
    meters.drift(lambda pi, mu: pi, bare, bare)
