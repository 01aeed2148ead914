"""Weights of soft rules by hand; see test_trust_regions_properties.py, too."""

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from dppo_jax.base import Signals
from dppo_jax.ops import soft_rules
from tests.support import factories
from tests.support.examples import examples


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


def _vespo(low, high=None):
  """Bounds from k and lambda for A < 0 and for A > 0, the same if one."""
  high = high or low
  return factories.bounds(
    power_low=low[0], decay_low=low[1], power_high=high[0], decay_high=high[1]
  )


def test_vespo():
  # W is 1.5 * .8 = 1.2 and .5 * .4 = .2; k, lambda by the sign of A.
  mu, pi = [[0.4, 0.5], [0.4, 0.5]], [[0.6, 0.4], [0.2, 0.2]]
  signals = _signals([[1.0, -1.0], [1.0, -1.0]], mu, pi)
  got = soft_rules.weigh_by_sequence(signals, _vespo((3, 2), (2, 3)))
  want = [
    [1.2**2 * np.exp(-3 * 0.2), 1.2**3 * np.exp(-2 * 0.2)],
    [0.2**2 * np.exp(3 * 0.8), 0.2**3 * np.exp(2 * 0.8)],
  ]
  np.testing.assert_allclose(got, want, rtol=1e-5)
  half = signals.replace(mask=np.array([[True, False], [True, False]]))
  got = soft_rules.weigh_by_sequence(half, _vespo((1, 1)))
  want = [1.5 * np.exp(-0.5), 0.5 * np.exp(0.5)]
  np.testing.assert_allclose(got[:, 0], want, rtol=1e-5)


_shapes = st.tuples(st.floats(0.5, 5, width=16), st.floats(0.5, 5, width=16))


@examples(20)
@given(shape=_shapes)
def test_vespo_is_the_gradient_of_an_objective(shape):
  """Of A F(W), F' = M / W: F is a lower incomplete gamma function."""
  k, decay = shape
  rng = np.random.default_rng(0)
  mu = rng.uniform(0.2, 0.6, (30, 3))
  pi = np.minimum(mu * np.exp(rng.normal(scale=0.5, size=mu.shape)), 0.99)
  a = np.tile([[-1.0], [2.0], [0.5]], (10, 3))

  def weight(log_pi):
    return np.exp((log_pi - np.log(mu)).sum(1))

  # Where F has all but reached its limit, what is left to it is exact.
  late = decay * weight(np.log(pi)) > k

  def objective(log_pi):
    x = decay * weight(log_pi)
    scale = np.exp(decay) * special.gamma(k) / decay**k
    f = np.where(late, -special.gammaincc(k, x), special.gammainc(k, x))
    return a[:, 0] * scale * f

  step = 1e-5 * np.array([1.0, 0.0, 0.0])
  rise = objective(np.log(pi) + step) - objective(np.log(pi) - step)
  keep = soft_rules.weigh_by_sequence(_signals(a, mu, pi), _vespo(shape))
  np.testing.assert_allclose((keep * a)[:, 0], rise / 2e-5, rtol=1e-4)


@examples(20)
@given(shape=_shapes)
def test_vespo_is_largest_at_power_over_decay(shape):
  w = shape[0] / shape[1] * np.geomspace(1 / 50, 50, 41)
  w = np.append(w, 1.0)
  # Two tokens: a ratio of .01, and what makes W of it.
  pi = np.stack([np.full(w.shape, 0.01), 100 * w], -1)
  signals = _signals(np.ones(pi.shape), np.ones(pi.shape), pi)
  keep = np.asarray(soft_rules.weigh_by_sequence(signals, _vespo(shape)))
  np.testing.assert_array_equal(keep[:, 0], keep[:, 1])
  rises = np.diff(keep[:-1, 0])
  assert (rises[:20] > 0).all()
  assert (rises[20:] <= 0).all()
  assert rises[20] < 0
  np.testing.assert_allclose(keep[-1], 1.0, rtol=1e-4)


@pytest.mark.parametrize(
  ('moved', 'shape', 'want'),
  [
    # 20 a token, then 20 and log 1e-8 a sequence.
    ([50.0, -19.0], (1, 0), np.e),
    ([15.0, 15.0], (1, 0), np.exp(20.0)),
    ([-15.0, -15.0], (1, 0), 1e-8),
    ([15.0, 15.0], (1, 1), 0.0),
    # What f32 cannot hold.
    ([15.0, 15.0], (100, 0), np.exp(80.0)),
    ([-np.inf, 0.0], (3, 2), 1e-24 * np.exp(2)),
  ],
)
def test_vespo_is_finite_and_clamped(moved, shape, want):
  signals = _signals([1.0, 1.0], 1.0, 1.0).replace(
    log_probs=np.array([moved], np.float32)
  )
  keep = soft_rules.weigh_by_sequence(signals, _vespo(shape))
  np.testing.assert_allclose(keep, np.full((1, 2), want), rtol=1e-4)
