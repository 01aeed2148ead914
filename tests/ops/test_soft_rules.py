"""Weights of single rules by hand; properties are in test_trust_regions.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import Signals
from dppo_jax.ops import soft_rules
from tests.support import factories


def _signals(advantages, mu, pi):
  """Of one completion without padding, or of several, from probabilities."""
  a, mu, pi = (np.atleast_2d(np.asarray(x)) for x in (advantages, mu, pi))
  return Signals(
    advantages=a.astype(np.float32),
    log_probs=np.log(pi).astype(np.float32),
    anchor_log_probs=np.log(mu).astype(np.float32),
    divergence=np.zeros(a.shape, np.float32),
    mask=np.ones(a.shape, bool),
  )


def test_sapo():
  # 4 p (1 - p) with p = 1 / (1 + exp(-tau (r - 1))), tau by the sign of A.
  r = np.array([1.5, 1.5, 1.3, 0.5, 0.7, 0.9, 0.7, 1.5])
  tau = np.array([2.0, 2.0, 2.0, 2.0, 0.5, 0.5, 0.5, 0.5])
  p = 1.0 / (1.0 + np.exp(-tau * (r - 1.0)))
  signals = _signals([1, 1, 2, 1, -1, -1, -0.5, -1], 0.4, 0.4 * r)
  bounds = factories.bounds(tau_high=2.0, tau_low=0.5)
  got = soft_rules.weigh_by_sigmoid(signals, bounds)[0]
  np.testing.assert_allclose(got, 4.0 * p * (1.0 - p), rtol=1e-5)
  assert got[0] == pytest.approx(0.786448, abs=1e-6)
  assert got[3] == pytest.approx(0.786448, abs=1e-6)
  assert got[4] == pytest.approx(0.994396, abs=1e-6)


def test_what_pushes_back_is_the_gradient_of_its_loss():
  """DRPO and SPO, whose losses are -A r + |A| c (r - 1)^2 / (2 bound)."""
  rng = np.random.default_rng(0)
  mu = rng.uniform(0.02, 0.98, (60, 8))
  moved = rng.normal(size=mu.shape) * np.geomspace(0.01, 2.0, 60)[:, None]
  pi = np.minimum(mu * np.exp(moved), 0.99)
  signals = _signals(np.tile([[-1.0], [2.0], [0.5]], (20, 8)), mu, pi)
  a = signals.advantages
  bounds = factories.bounds(delta_low=0.15, delta_high=0.15, soft_clip=0.15)

  def loss(log_probs, scale, bound):
    r = jnp.exp(log_probs - signals.anchor_log_probs)
    return jnp.sum(-a * r + jnp.abs(a) * scale * (r - 1) ** 2 / (2 * bound))

  r = np.exp(signals.log_probs - signals.anchor_log_probs)
  for rule, scale in (
    (soft_rules.push_back_by_mass, np.exp(signals.anchor_log_probs)),
    (soft_rules.push_back_by_ratio, np.ones_like(r)),
  ):
    keep = rule(signals, bounds)
    assert (keep < 0).any()
    assert (keep > 1).any()
    want = jax.grad(loss)(jnp.asarray(signals.log_probs), scale, 0.15)
    np.testing.assert_allclose(-keep * a * r, want, rtol=2e-4, atol=2e-5)
