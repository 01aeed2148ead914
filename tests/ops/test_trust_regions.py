"""Each rule by hand, and whether its row of the table says the truth.

Properties that hold of every rule are in test_trust_regions_properties.py.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.ops import trust_regions
from dppo_jax.ops.trust_regions import (
  APPLIES_TO,
  TRUST_REGIONS,
  Signals,
  Thresholds,
)
from tests.support import factories, rule_cases

_ROWS = pytest.mark.parametrize('rule', TRUST_REGIONS)
_FIELDS = [field.name for field in dataclasses.fields(Thresholds)]


@pytest.mark.parametrize(
  ('rule', 'overrides', 'want'),
  [
    ('none', {}, [1, 1, 1, 1, 1, 1, 1, 1]),
    ('ratio_clip', {}, [0, 0, 1, 1, 0, 1, 0, 1]),
    ('ratio_clip', {'direction': 'any'}, [0, 0, 1, 0, 0, 1, 0, 0]),
    ('ratio_clip', {'advantage_sign': 'negative'}, [1, 1, 1, 1, 0, 1, 0, 1]),
    ('ratio_clip', {'advantage_sign': 'positive'}, [0, 0, 1, 1, 1, 1, 1, 1]),
    ('ratio_clip', {'alpha_high': 0.45}, [1, 1, 1, 1, 0, 1, 0, 1]),
    ('ratio_clip', {'alpha_low': 0.45}, [0, 0, 1, 1, 0, 1, 0, 1]),
    ('ratio_clip', {'alpha_low': 0.55}, [0, 0, 1, 1, 1, 1, 1, 1]),
    ('dual_clip', {}, [0, 0, 1, 1, 0, 1, 0, 1]),
    ('dual_clip', {'dual_clip': 1.4}, [0, 0, 1, 1, 0, 1, 0, 0]),
    ('dual_clip', {'dual_clip': 1.4, 'clip_high': 0.6}, [1] * 4 + [0, 1, 0, 0]),
    ('divergence', {}, [0, 1, 0, 1, 0, 0, 1, 1]),
    ('divergence', {'direction': 'any'}, [0, 1, 0, 0, 0, 0, 1, 0]),
    ('mask_bad_updates', {}, [1, 1, 1, 1, 0, 1, 0, 1]),
    ('mask_bad_updates', {'direction': 'any'}, [1, 1, 1, 1, 0, 1, 0, 1]),
    ('mask_bad_updates', {'delta_low': 0.2}, [1, 1, 1, 1, 1, 1, 1, 1]),
    # The mean of D is .45, its maximum .9; whose bound depends on the sign.
    ('trm_max', {'delta_low': 0.95}, [0, 0, 0, 0, 1, 1, 1, 1]),
    ('trm_max', {'delta_high': 0.95}, [1, 1, 1, 1, 0, 0, 0, 0]),
    ('trm_mean', {'delta_low': 0.46}, [0, 0, 0, 0, 1, 1, 1, 1]),
    ('trm_mean', {'delta_low': 0.44, 'delta_high': 0.46}, [1] * 4 + [0] * 4),
    # Either bound: delta on the maximum, budget on the mean.
    ('trm_max_mean', {'budget': 0.46}, [0] * 8),
    ('trm_max_mean', {'delta_low': 0.95, 'budget': 0.46}, [0] * 4 + [1] * 4),
    (
      'trm_max_mean',
      {'delta_low': 0.95, 'delta_high': 0.95, 'budget': 0.44},
      [0] * 8,
    ),
    # The geometric mean of the ratios is .96744^(1/8) = .99587.
    ('gspo', {}, [1, 1, 1, 1, 1, 1, 1, 1]),
    ('gspo', {'clip_low': 0.004}, [1, 1, 1, 1, 0, 0, 0, 0]),
    ('gspo', {'clip_low': 0.005}, [1, 1, 1, 1, 1, 1, 1, 1]),
    ('gspo', {'clip_high': -0.004}, [1, 1, 1, 1, 1, 1, 1, 1]),
    ('gspo', {'clip_high': -0.005}, [0, 0, 0, 0, 1, 1, 1, 1]),
  ],
)
def test_by_hand(rule, overrides, want):
  np.testing.assert_array_equal(
    rule_cases.keep(rule, rule_cases.BY_HAND, **overrides)[0], want
  )


@pytest.mark.parametrize('rule', ['dual_clip', 'gspo'])
@pytest.mark.parametrize('moved', [-2.0, 2.0])
def test_without_an_advantage_nothing_is_masked(rule, moved):
  signals = rule_cases.row_of([0, 0], [moved - 3] * 2, [-3, -3], [0.9, 0.9])
  np.testing.assert_array_equal(rule_cases.keep(rule, signals), 1.0)


@_ROWS
def test_row_sees_as_far_as_its_scope(rule):
  """A narrower scope than the one it states would be false."""
  signals, other = rule_cases.random_signals(0), rule_cases.random_signals(1)
  # A response whose dynamic budget doubles with what comes later.
  signals.log_probs[0] = signals.anchor_log_probs[0] - 0.3
  signals.divergence[0] = [0.2, 0.08, 0.08, 0.01, 0.0, 0.0, 0.0, 0.0]
  other.divergence[0] = 0.5
  tight = dict(clip_low=0.05, clip_high=0.05, budget=0.1)
  keep = rule_cases.keep(rule, signals, **tight)
  later = rule_cases.keep(
    rule, rule_cases.exchange(signals, other, slice(4, None)), **tight
  )
  earlier = rule_cases.keep(
    rule, rule_cases.exchange(signals, other, slice(0, 4)), **tight
  )
  sees_ahead = (later[:, :4] != keep[:, :4]).any()
  sees_behind = (earlier[:, 4:] != keep[:, 4:]).any()
  scope = TRUST_REGIONS[rule].scope
  assert sees_ahead == (scope == 'sequence')
  assert sees_behind == (scope != 'token')


@_ROWS
def test_row_says_whether_it_reads_the_divergence(rule):
  blind = dataclasses.replace(
    rule_cases.BY_HAND, divergence=np.zeros_like(rule_cases.BY_HAND.divergence)
  )
  same = (
    rule_cases.keep(rule, blind) == rule_cases.keep(rule, rule_cases.BY_HAND)
  ).all()
  assert same != TRUST_REGIONS[rule].reads_divergence


# Another value of each bound, far from the usual one.
_OTHERS = {
  'direction': 'any',
  'advantage_sign': 'negative',
  'alpha_low': 0.9,
  'alpha_high': 0.9,
  'delta_low': 0.02,
  'delta_high': 0.02,
  'clip_low': 0.9,
  'clip_high': 5.0,
  'dual_clip': 1.01,
  'w_min': 0.1,
  'weight_order': 'shuffled',
  'budget': 0.005,
  'tau_low': 3.0,
  'tau_high': 3.0,
  'soft_clip': 0.5,
  'power_low': 0.5,
  'power_high': 0.5,
  'decay_low': 0.5,
  'decay_high': 0.5,
  'tau_entropy': 1e-4,
}


@functools.cache
def _at_random(field):
  """M by rule, of many responses, with that field changed if it is not None."""
  bounds = dict(delta_high=0.2, clip_low=0.1, clip_high=0.1)
  if field is not None:
    bounds[field] = _OTHERS[field]
  return [
    rule_cases.keeps(rule_cases.random_signals(seed), **bounds)
    for seed in range(3)
  ]


@_ROWS
@pytest.mark.parametrize('field', _FIELDS)
def test_row_says_which_bounds_it_reads(rule, field):
  row = TRUST_REGIONS[rule]
  differs = any(
    (usual[rule] != changed[rule]).any()
    for usual, changed in zip(_at_random(None), _at_random(field), strict=True)
  )
  assert set(row.reads) <= set(_FIELDS)
  if field in row.reads:
    assert differs
  elif not (row.gated and field in APPLIES_TO):
    assert not differs


def test_the_entropy_allows_a_ratio():
  signals = rule_cases.row_of(
    [1, 1, 1], [-1.0, -1.3, -1.3], [-1.2] * 3, [0] * 3
  )
  # (log r)^2 is .04, .01, .01; only tokens that move away are bound.
  keep = rule_cases.keep('estr', signals, tau_entropy=0.03)
  np.testing.assert_array_equal(keep, [[0.0, 1.0, 1.0]])
  keep = rule_cases.keep('estr', signals, tau_entropy=0.005, direction='any')
  np.testing.assert_array_equal(keep, [[0.0, 0.0, 0.0]])
  keep = rule_cases.keep('estr', signals, tau_entropy=0.05, direction='any')
  np.testing.assert_array_equal(keep, [[1.0, 1.0, 1.0]])
  bare = dataclasses.replace(signals, anchor_entropy=None)
  with pytest.raises(ValueError, match="'estr' needs the anchor's entropy"):
    rule_cases.keep_exactly('estr', bare)


def _next(value, toward):
  return np.nextafter(np.float32(value), np.float32(toward))


@pytest.mark.parametrize('sign', [-1.0, 1.0])
@pytest.mark.parametrize('rule', ['divergence', 'cppo', 'trm_max', 'trm_mean'])
def test_a_divergence_on_the_bound_is_kept(rule, sign):
  bound = np.float32(0.15)
  # Responses of one token: what a token may do is what a response may.
  on, above = (
    rule_cases.row_of([sign], [-2 + sign], [-2], [d])
    for d in (bound, _next(bound, 1))
  )
  other = 0.9 if sign > 0 else 0.0
  bounds = dict(
    delta_low=other if sign > 0 else float(bound),
    delta_high=float(bound) if sign > 0 else 1.0,
  )
  assert rule_cases.keep_exactly(rule, on, **bounds) == 1.0
  assert rule_cases.keep_exactly(rule, above, **bounds) == 0.0


@pytest.mark.parametrize('rule', ['ratio_clip', 'dual_clip', 'gspo'])
def test_a_ratio_on_the_bound_is_kept(rule):
  up, down = (
    rule_cases.row_of([1], [-0.5], [-1], [0]),
    rule_cases.row_of([-1], [-1.5], [-1], [0]),
  )
  high, low = (
    float(trust_regions.ratio(s.log_probs, s.anchor_log_probs)[0, 0])
    for s in (up, down)
  )
  tight = dict(clip_low=1 - low, clip_high=high - 1)
  tighter = dict(clip_low=1 - low - 1e-6, clip_high=high - 1 - 1e-6)
  for bounds, want in ((tight, 1.0), (tighter, 0.0)):
    assert rule_cases.keep_exactly(rule, up, **bounds) == want
    assert rule_cases.keep_exactly(rule, down, **bounds) == want


def test_a_ratio_on_the_bound_of_dual_clip_is_kept():
  signals = rule_cases.row_of([-1], [-1], [-2], [0])
  r = float(trust_regions.ratio(*jnp.array([-1.0, -2.0])))
  assert rule_cases.keep_exactly('dual_clip', signals, dual_clip=r) == 1.0
  assert (
    rule_cases.keep_exactly('dual_clip', signals, dual_clip=r - 1e-6) == 0.0
  )


def test_a_loss_of_the_bound_is_a_bad_update():
  # The one bound that is not strict: mu - pi = 1/2 exactly.
  signals = rule_cases.row_of([-1], [-np.inf], [np.log(0.5)], [0])
  lost = float(jnp.exp(signals.anchor_log_probs)[0, 0])
  assert lost == pytest.approx(0.5)
  assert (
    rule_cases.keep_exactly('mask_bad_updates', signals, delta_low=lost) == 0.0
  )
  above = float(_next(lost, 1))
  assert (
    rule_cases.keep_exactly('mask_bad_updates', signals, delta_low=above) == 1.0
  )


def _gradients(rules):
  """Of each rule's weights in all, in log pi and in D."""

  def total(rule, log_probs, divergence):
    signals = dataclasses.replace(
      rule_cases.BY_HAND, log_probs=log_probs, divergence=divergence
    )
    bounds = factories.bounds(**rule_cases.BOUNDS)
    return jnp.sum(trust_regions.keep_weights(rule, signals, bounds))

  @jax.jit
  def of_all(*moved):
    return {
      rule: jax.grad(functools.partial(total, rule), (0, 1))(*moved)
      for rule in rules
    }

  return of_all(rule_cases.BY_HAND.log_probs, rule_cases.BY_HAND.divergence)


@pytest.fixture(scope='module')
def gradients():
  return _gradients(TRUST_REGIONS)


@_ROWS
def test_keep_has_no_gradient(gradients, rule):
  for gradient in gradients[rule]:
    np.testing.assert_array_equal(gradient, 0.0)


def test_not_even_a_soft_rule_has_a_gradient(monkeypatch):
  def soft(signals, bounds):
    del bounds
    return jax.nn.sigmoid(signals.log_probs)

  row = trust_regions.TrustRegion(soft, (), 'token', False)
  monkeypatch.setitem(trust_regions.TRUST_REGIONS, 'soft', row)
  for gradient in _gradients(['soft'])['soft']:
    np.testing.assert_array_equal(gradient, 0.0)


def test_signals_must_agree_in_shape():
  bounds = factories.bounds()
  for field in dataclasses.fields(Signals):
    value = getattr(rule_cases.BY_HAND, field.name)
    for wrong in (value[:, :1], value[0]):
      signals = dataclasses.replace(rule_cases.BY_HAND, **{field.name: wrong})
      with pytest.raises(AssertionError):
        trust_regions.keep_weights('none', signals, bounds)
  flat = jax.tree.map(lambda x: x[0], rule_cases.BY_HAND)
  with pytest.raises(AssertionError):
    trust_regions.keep_weights('none', flat, bounds)


def test_unknown_rule():
  with pytest.raises(KeyError):
    trust_regions.keep_weights('clip', rule_cases.BY_HAND, factories.bounds())
