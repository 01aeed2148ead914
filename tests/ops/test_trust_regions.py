"""What holds of every rule, and each rule by hand.

Properties are asked of the rows of the table, so that a new row is tested by
being there; what a row says of itself (its scope) says which apply.
"""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import TokenStats
from dppo_jax.ops import divergences, trust_regions
from dppo_jax.ops.trust_regions import TRUST_REGIONS, Bounds, Signals

_few = settings(max_examples=15, derandomize=True, deadline=None, database=None)
_SHAPE = (3, 4)
_ROWS = pytest.mark.parametrize('rule', TRUST_REGIONS)
_BOUNDS = Bounds(delta_low=0.1, delta_high=0.3, clip_low=0.2, clip_high=0.4)


def _f32(low, high):
  return hnp.arrays(np.float32, _SHAPE, elements=st.floats(low, high, width=16))


_signals = st.builds(
  Signals,
  advantages=hnp.arrays(
    np.float32, _SHAPE, elements=st.sampled_from([-1.0, -0.25, 0.0, 0.5, 2.0])
  ),
  log_probs=_f32(-3, 0),
  anchor_log_probs=_f32(-3, 0),
  divergence=_f32(0, 1),
  mask=hnp.arrays(np.bool_, _SHAPE, elements=st.sampled_from([1, 1, 1, 0])),
)
_keep_weights = jax.jit(trust_regions.keep_weights, static_argnums=(0, 2))


def _keep(rule, signals, bounds=_BOUNDS):
  return np.asarray(_keep_weights(rule, signals, bounds))


def _row(advantages, log_probs, anchor_log_probs, divergence):
  """Signals of one sequence without padding, from lists."""
  values = (advantages, log_probs, anchor_log_probs, divergence)
  a, pi, mu, d = (np.asarray(v, np.float32)[None] for v in values)
  return Signals(
    advantages=a,
    log_probs=pi,
    anchor_log_probs=mu,
    divergence=d,
    mask=np.ones(a.shape, bool),
  )


def _poison_masked(signals):
  """NaN wherever the mask is False."""

  def poison(values):
    return np.where(signals.mask, values, np.float32(np.nan))

  return Signals(
    advantages=poison(signals.advantages),
    log_probs=poison(signals.log_probs),
    anchor_log_probs=poison(signals.anchor_log_probs),
    divergence=poison(signals.divergence),
    mask=signals.mask,
  )


# Eight tokens: each sign of A, toward and away, inside and outside.
#   pi/mu                1.5   1.5   1.3   0.5   0.7   0.9   0.7   1.5
_BY_HAND = _row(
  advantages=[1, 1, 2, 1, -1, -1, -0.5, -1],
  log_probs=np.log([0.6, 0.6, 0.39, 0.2, 0.35, 0.45, 0.35, 0.6]),
  anchor_log_probs=np.log([0.4, 0.4, 0.3, 0.4, 0.5, 0.5, 0.5, 0.4]),
  divergence=[0.31, 0.29, 0.9, 0.9, 0.11, 0.11, 0.09, 0.9],
)


@pytest.mark.parametrize(
  ('rule', 'want'),
  [
    ('none', [1, 1, 1, 1, 1, 1, 1, 1]),
    ('ratio_clip', [0, 0, 1, 1, 0, 1, 0, 1]),
    ('divergence', [0, 1, 0, 1, 0, 0, 1, 1]),
  ],
)
def test_by_hand(rule, want):
  np.testing.assert_array_equal(_keep(rule, _BY_HAND)[0], want)


def test_ratio():
  log_pi = jnp.asarray(np.log([0.6, 0.1, 0.5]), jnp.float32)
  log_mu = jnp.asarray(np.log([0.4, 0.2, 0.5]), jnp.float32)
  np.testing.assert_allclose(
    trust_regions.ratio(log_pi, log_mu), [1.5, 0.5, 1.0], rtol=1e-6
  )


@pytest.mark.parametrize('log_prob', [-80.0, -1e4, -3e38])
def test_ratio_is_finite_and_positive(log_prob):
  certain, rare = jnp.zeros(1), jnp.full(1, log_prob)
  high = trust_regions.ratio(certain, rare)
  low = trust_regions.ratio(rare, certain)
  np.testing.assert_allclose(high, np.exp(80.0), rtol=1e-5)
  np.testing.assert_allclose(low, np.exp(-80.0), rtol=1e-5)


def test_moves_away():
  signals = _row(
    advantages=[1, 1, 1, -1, -1, -1, 0, 0, 0],
    log_probs=[-1, -3, -2, -1, -3, -2, -1, -3, -2],
    anchor_log_probs=[-2] * 9,
    divergence=[0] * 9,
  )
  got = trust_regions.moves_away(signals)
  assert got.dtype == bool
  np.testing.assert_array_equal(got[0], [1, 0, 0, 0, 1, 0, 0, 0, 0])


@_ROWS
@_few
@given(signals=_signals)
def test_keep_is_a_weight_without_what_is_masked(rule, signals):
  keep = _keep(rule, signals)
  assert keep.shape == _SHAPE
  assert keep.dtype == np.float32
  assert ((keep >= 0) & (keep <= 1)).all()
  np.testing.assert_array_equal(keep * ~signals.mask, 0.0)
  np.testing.assert_array_equal(_keep(rule, _poison_masked(signals)), keep)


@_ROWS
@_few
@given(signals=_signals)
def test_moves_toward_the_anchor_are_kept(rule, signals):
  if TRUST_REGIONS[rule].scope == 'sequence':
    return  # A response dropped as a whole does not ask for the sign.
  moved = np.asarray(signals.log_probs - signals.anchor_log_probs)
  safe = np.asarray(signals.advantages) * moved <= 0
  kept = _keep(rule, signals)[safe & np.asarray(signals.mask)]
  np.testing.assert_array_equal(kept, 1.0)


@_ROWS
@_few
@given(signals=_signals)
def test_padding_changes_nothing(rule, signals):
  padded = jax.tree.map(
    lambda x: np.pad(
      x,
      [(0, 0), (0, 3)],
      constant_values=False if x.dtype == bool else np.nan,
    ),
    signals,
  )
  keep = _keep(rule, padded)
  np.testing.assert_array_equal(keep[:, :4], _keep(rule, signals))
  np.testing.assert_array_equal(keep[:, 4:], 0.0)


@_ROWS
@_few
@given(signals=_signals, order=st.permutations(range(_SHAPE[0])))
def test_rows_do_not_know_each_other(rule, signals, order):
  keep = _keep(rule, signals)
  order = np.array(order)
  shuffled = jax.tree.map(lambda x: x[order], signals)
  np.testing.assert_array_equal(_keep(rule, shuffled), keep[order])
  alone = jax.tree.map(lambda x: x[:1], signals)
  np.testing.assert_array_equal(_keep(rule, alone), keep[:1])


@_ROWS
@_few
@given(signals=_signals)
def test_row_sees_no_further_than_its_scope(rule, signals):
  signals = dataclasses.replace(signals, mask=np.ones(_SHAPE, bool))
  scope = TRUST_REGIONS[rule].scope
  keep = _keep(rule, signals)
  if scope != 'sequence':
    prefix = jax.tree.map(lambda x: x[:, :2], signals)
    np.testing.assert_array_equal(_keep(rule, prefix), keep[:, :2])
  if scope == 'token':
    last = jax.tree.map(lambda x: x[:, 3:], signals)
    np.testing.assert_array_equal(_keep(rule, last), keep[:, 3:])


@_ROWS
def test_row_says_whether_it_reads_the_divergence(rule):
  blind = dataclasses.replace(
    _BY_HAND, divergence=np.zeros_like(_BY_HAND.divergence)
  )
  same = (_keep(rule, blind) == _keep(rule, _BY_HAND)).all()
  assert same != TRUST_REGIONS[rule].reads_divergence


@_ROWS
@_few
@given(signals=_signals)
def test_without_bounds_every_rule_is_none(rule, signals):
  infinite = dict.fromkeys(
    (field.name for field in dataclasses.fields(Bounds)), np.inf
  )
  np.testing.assert_array_equal(
    _keep(rule, signals, Bounds(**infinite)), _keep('none', signals)
  )


@pytest.mark.parametrize('sign', [-1.0, 1.0])
def test_a_divergence_on_the_bound_is_kept(sign):
  bound = np.float32(0.15)
  above = np.nextafter(bound, np.float32(1))
  signals = _row(
    advantages=[sign, sign],
    log_probs=[-2 + sign, -2 + sign],
    anchor_log_probs=[-2, -2],
    divergence=[bound, above],
  )
  other = 0.9 if sign > 0 else 0.0
  bounds = dataclasses.replace(
    _BOUNDS,
    delta_low=other if sign > 0 else float(bound),
    delta_high=float(bound) if sign > 0 else 1.0,
  )
  np.testing.assert_array_equal(_keep('divergence', signals, bounds)[0], [1, 0])


def test_a_ratio_on_the_bound_is_kept():
  signals = _row([1, -1], [-0.5, -1.5], [-1, -1], [0, 0])
  high, low = trust_regions.ratio(signals.log_probs, signals.anchor_log_probs)[
    0
  ].tolist()
  tight = dict(clip_low=1 - low, clip_high=high - 1)
  tighter = dict(clip_low=1 - low - 1e-6, clip_high=high - 1 - 1e-6)
  for bounds, want in ((tight, [1, 1]), (tighter, [0, 0])):
    bounds = dataclasses.replace(_BOUNDS, **bounds)
    np.testing.assert_array_equal(_keep('ratio_clip', signals, bounds)[0], want)


@jax.jit
def _keep_by_binary_tv(log_mu, log_pi, advantage, delta):
  signals = Signals(
    advantages=jnp.full(log_mu.shape, advantage),
    log_probs=log_pi,
    anchor_log_probs=log_mu,
    divergence=divergences.binary_tv(
      jnp.zeros(log_mu.shape, int),
      TokenStats(log_probs=log_mu),
      TokenStats(log_probs=log_pi),
    ),
    mask=jnp.ones(log_mu.shape, bool),
  )
  bounds = dataclasses.replace(_BOUNDS, delta_low=delta, delta_high=delta)
  return trust_regions.keep_weights('divergence', signals, bounds)


@_few
@given(delta=st.floats(0.01, 0.99))
def test_binary_tv_never_masks_where_it_cannot_be_exceeded(delta):
  grid = np.append(np.linspace(-12, -0.01, 60), 0.0).astype(np.float32)
  log_mu, log_pi = np.meshgrid(grid, grid, indexing='ij')
  mu = np.exp(log_mu.astype(np.float64))
  down = np.asarray(_keep_by_binary_tv(log_mu, log_pi, -1.0, delta))
  up = np.asarray(_keep_by_binary_tv(log_mu, log_pi, 1.0, delta))
  # A slack of f32, so that no bound is exceeded by rounding alone.
  np.testing.assert_array_equal(down[mu <= delta - 1e-6], 1.0)
  np.testing.assert_array_equal(up[mu >= 1 - delta + 1e-6], 1.0)
  # For any other mu, a policy that goes all the way is masked.
  mu = mu[:, 0]
  np.testing.assert_array_equal(down[mu > delta + 1e-4, 0], 0.0)
  np.testing.assert_array_equal(up[mu < 1 - delta - 1e-4, -1], 0.0)


@_ROWS
def test_keep_has_no_gradient(rule):
  def total(log_probs, divergence):
    signals = dataclasses.replace(
      _BY_HAND, log_probs=log_probs, divergence=divergence
    )
    return jnp.sum(trust_regions.keep_weights(rule, signals, _BOUNDS))

  gradients = jax.grad(total, argnums=(0, 1))(
    _BY_HAND.log_probs, _BY_HAND.divergence
  )
  for gradient in gradients:
    np.testing.assert_array_equal(gradient, 0.0)


def test_not_even_a_soft_rule_has_a_gradient(monkeypatch):
  def soft(signals, bounds):
    del bounds
    return jax.nn.sigmoid(signals.log_probs)

  row = trust_regions.TrustRegion(soft, False, 'token')
  monkeypatch.setitem(trust_regions.TRUST_REGIONS, 'soft', row)
  test_keep_has_no_gradient('soft')


def test_signals_must_agree_in_shape():
  for field in dataclasses.fields(Signals):
    value = getattr(_BY_HAND, field.name)
    for wrong in (value[:, :1], value[0]):
      signals = dataclasses.replace(_BY_HAND, **{field.name: wrong})
      with pytest.raises(AssertionError):
        trust_regions.keep_weights('none', signals, _BOUNDS)
  flat = jax.tree.map(lambda x: x[0], _BY_HAND)
  with pytest.raises(AssertionError):
    trust_regions.keep_weights('none', flat, _BOUNDS)


def test_unknown_rule():
  with pytest.raises(KeyError):
    trust_regions.keep_weights('clip', _BY_HAND, _BOUNDS)
