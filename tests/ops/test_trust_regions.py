"""What holds of every rule, and each rule by hand.

Properties are asked of the rows of the table, so that a new row is tested by
being there; what a row says of itself (its scope, what it reads, whether it is
gated) says which apply.
"""

import dataclasses
import functools

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import TokenStats
from dppo_jax.ops import divergences, trust_regions
from dppo_jax.ops.trust_regions import (
  APPLIES_TO,
  TRUST_REGIONS,
  Signals,
  Thresholds,
)
from tests.support import factories
from tests.support.examples import examples

_few = examples(10)
_SHAPE = (3, 4)
_ROWS = pytest.mark.parametrize('rule', TRUST_REGIONS)
# The rows that `applies_to` gates; dual_clip calls it itself.
_ASKING = pytest.mark.parametrize(
  'rule',
  [r for r, row in TRUST_REGIONS.items() if row.gated or r == 'dual_clip'],
)
_BOUNDS = dict(
  delta_low=0.1, delta_high=0.3, clip_low=0.2, clip_high=0.4, budget=0.05
)
_FIELDS = [field.name for field in dataclasses.fields(Thresholds)]


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
  rate=_f32(-0.5, 0.5),
  anchor_entropy=_f32(0, 3),
)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compiled(rule, names, signals, numbers):
  bounds = Thresholds(**dict(names), **numbers)
  return trust_regions.keep_weights(rule, signals, bounds)


def _keep(rule, signals, **overrides):
  """M; numbers among the bounds are traced, so that any of them is cheap."""
  fields = dataclasses.asdict(factories.bounds(**_BOUNDS | overrides))
  names = {k: v for k, v in fields.items() if isinstance(v, str)}
  numbers = {k: np.float32(v) for k, v in fields.items() if k not in names}
  return np.asarray(_compiled(rule, tuple(names.items()), signals, numbers))


def _keep_exactly(rule, signals, **overrides):
  """M as a run has it: the bounds are constants, not rounded first."""
  bounds = factories.bounds(**_BOUNDS | overrides)
  return np.asarray(trust_regions.keep_weights(rule, signals, bounds))


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
    rate=np.ones(a.shape, np.float32),
    anchor_entropy=np.ones(a.shape, np.float32),
  )


def _random_signals(seed):
  """Responses with one advantage each; some moved far, some hardly."""
  rng = np.random.default_rng(seed)
  shape = (60, 8)
  log_mu = np.log(rng.uniform(0.02, 0.98, shape))
  moved = rng.normal(size=shape) * np.geomspace(0.01, 2.0, 60)[:, None]
  log_pi = np.minimum(log_mu + moved, -0.01)
  # Now and then a large one, so that budgets run out.
  divergence = 0.5 * rng.uniform(0.0, 1.0, shape) ** 4
  return Signals(
    advantages=np.tile([[-1.0], [2.0], [0.5]], (20, 8)).astype(np.float32),
    log_probs=log_pi.astype(np.float32),
    anchor_log_probs=log_mu.astype(np.float32),
    divergence=divergence.astype(np.float32),
    mask=np.ones(shape, bool),
    anchor_entropy=rng.uniform(0.01, 3.0, shape).astype(np.float32),
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
    rate=poison(signals.rate),
    anchor_entropy=poison(signals.anchor_entropy),
  )


def _moves_away(signals):
  moved = np.asarray(signals.log_probs) - np.asarray(signals.anchor_log_probs)
  return np.asarray(signals.advantages) * moved > 0


# Eight tokens: each sign of A, toward and away, inside and outside.
#   pi/mu                1.5   1.5   1.3   0.5   0.7   0.9   0.7   1.5
#   mu - pi                                      .15   .05   .15
_BY_HAND = _row(
  advantages=[1, 1, 2, 1, -1, -1, -0.5, -1],
  log_probs=np.log([0.6, 0.6, 0.39, 0.2, 0.35, 0.45, 0.35, 0.6]),
  anchor_log_probs=np.log([0.4, 0.4, 0.3, 0.4, 0.5, 0.5, 0.5, 0.4]),
  divergence=[0.31, 0.29, 0.9, 0.9, 0.11, 0.11, 0.09, 0.9],
)


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
  np.testing.assert_array_equal(_keep(rule, _BY_HAND, **overrides)[0], want)


@_ROWS
@_few
@given(signals=_signals)
def test_keep_is_a_weight_without_what_is_masked(rule, signals):
  keep = _keep(rule, signals)
  assert keep.shape == _SHAPE
  assert keep.dtype == np.float32
  row = TRUST_REGIONS[rule]
  assert row.signed or ((keep >= 0) & (keep <= 1)).all()
  if rule not in {'sapo', 'cppo_soft'} and not row.signed:
    assert np.isin(keep, [0.0, 1.0]).all()
  np.testing.assert_array_equal(keep * ~signals.mask, 0.0)
  np.testing.assert_array_equal(_keep(rule, _poison_masked(signals)), keep)


@_ROWS
@_few
@given(signals=_signals)
def test_moves_toward_the_anchor_are_kept(rule, signals):
  if not TRUST_REGIONS[rule].gated:
    return  # It asks for no direction, or for one of its own.
  safe = ~_moves_away(signals) & signals.mask
  np.testing.assert_array_equal(_keep(rule, signals)[safe], 1.0)


@pytest.mark.parametrize('rule', ['dual_clip', 'gspo'])
@pytest.mark.parametrize('moved', [-2.0, 2.0])
def test_without_an_advantage_nothing_is_masked(rule, moved):
  signals = _row([0, 0], [moved - 3] * 2, [-3, -3], [0.9, 0.9])
  np.testing.assert_array_equal(_keep(rule, signals), 1.0)


@_ASKING
@_few
@given(signals=_signals)
def test_a_side_masks_that_sign_alone(rule, signals):
  both = _keep(rule, signals, direction='any')
  for side, of_side in (
    ('negative', signals.advantages < 0),
    ('positive', signals.advantages > 0),
  ):
    want = np.where(of_side, both, 1.0) * signals.mask
    got = _keep(rule, signals, direction='any', advantage_sign=side)
    np.testing.assert_array_equal(got, want)


@_ROWS
@_few
@given(signals=_signals)
def test_either_direction_masks_the_same_and_more(rule, signals):
  if not TRUST_REGIONS[rule].gated:
    return
  sign_blind = _keep(rule, signals, direction='any')
  want = np.where(_moves_away(signals), sign_blind, 1.0) * signals.mask
  np.testing.assert_array_equal(_keep(rule, signals, direction='away'), want)
  rising = np.asarray(signals.advantages) * np.asarray(signals.rate) > 0
  want = np.where(rising, sign_blind, 1.0) * signals.mask
  got = _keep(rule, signals, direction='predictive')
  np.testing.assert_array_equal(got, want)


@_ASKING
@_few
@given(
  signals=_signals,
  low=st.sampled_from([0.0, 0.11, 0.43, 1.0]),
  high=st.sampled_from([0.0, 0.11, 0.43, 1.0]),
)
def test_relaxed_tokens_are_exempt(rule, signals, low, high):
  mu = np.exp(signals.anchor_log_probs)
  exempt = (signals.advantages < 0) & (mu < low)
  exempt |= (signals.advantages > 0) & (mu < high)
  tight = _keep(rule, signals, direction='any', dual_clip=1.1)
  want = np.where(exempt, 1.0, tight) * signals.mask
  got = _keep(
    rule,
    signals,
    direction='any',
    dual_clip=1.1,
    alpha_low=low,
    alpha_high=high,
  )
  np.testing.assert_array_equal(got, want)


@_ROWS
@_few
@given(signals=_signals)
def test_padding_changes_nothing(rule, signals):
  keep = _keep(rule, signals)
  for before, after in ((0, 3), (2, 1)):
    padded = jax.tree.map(
      lambda x, width=(before, after): np.pad(
        x,
        [(0, 0), width],
        constant_values=False if x.dtype == bool else np.nan,
      ),
      signals,
    )
    got = _keep(rule, padded)
    np.testing.assert_array_equal(got[:, before : before + 4], keep)
    np.testing.assert_array_equal(got[:, :before], 0.0)
    np.testing.assert_array_equal(got[:, before + 4 :], 0.0)


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


def _exchange(signals, other, columns):
  """What the other signals say of those columns; the mask stays."""
  taken = np.zeros(signals.mask.shape, bool)
  taken[:, columns] = True
  mixed = jax.tree.map(lambda a, b: np.where(taken, b, a), signals, other)
  return dataclasses.replace(mixed, mask=signals.mask)


@_ROWS
@_few
@given(signals=_signals, other=_signals)
def test_row_sees_no_further_than_its_scope(rule, signals, other):
  scope = TRUST_REGIONS[rule].scope
  keep = _keep(rule, signals)
  if scope != 'sequence':
    later = _exchange(signals, other, slice(2, None))
    np.testing.assert_array_equal(_keep(rule, later)[:, :2], keep[:, :2])
  if scope == 'token':
    earlier = _exchange(signals, other, slice(0, 3))
    earlier = dataclasses.replace(earlier, mask=np.ones(_SHAPE, bool))
    got = _keep(rule, earlier)[:, 3]
    np.testing.assert_array_equal(got * signals.mask[:, 3], keep[:, 3])


@_ROWS
def test_row_sees_as_far_as_its_scope(rule):
  """A narrower scope than the one it states would be false."""
  signals, other = _random_signals(0), _random_signals(1)
  # A response whose dynamic budget doubles with what comes later.
  signals.log_probs[0] = signals.anchor_log_probs[0] - 0.3
  signals.divergence[0] = [0.2, 0.08, 0.08, 0.01, 0.0, 0.0, 0.0, 0.0]
  other.divergence[0] = 0.5
  tight = dict(clip_low=0.05, clip_high=0.05, budget=0.1)
  keep = _keep(rule, signals, **tight)
  later = _keep(rule, _exchange(signals, other, slice(4, None)), **tight)
  earlier = _keep(rule, _exchange(signals, other, slice(0, 4)), **tight)
  sees_ahead = (later[:, :4] != keep[:, :4]).any()
  sees_behind = (earlier[:, 4:] != keep[:, 4:]).any()
  scope = TRUST_REGIONS[rule].scope
  assert sees_ahead == (scope == 'sequence')
  assert sees_behind == (scope != 'token')


@_ROWS
def test_row_says_whether_it_reads_the_divergence(rule):
  blind = dataclasses.replace(
    _BY_HAND, divergence=np.zeros_like(_BY_HAND.divergence)
  )
  same = (_keep(rule, blind) == _keep(rule, _BY_HAND)).all()
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


@_ROWS
@pytest.mark.parametrize('field', _FIELDS)
def test_row_says_which_bounds_it_reads(rule, field):
  row = TRUST_REGIONS[rule]
  usual = dict(delta_high=0.2, clip_low=0.1, clip_high=0.1)
  changed = usual | {field: _OTHERS[field]}
  signals = [_random_signals(seed) for seed in range(3)]
  differs = any(
    (_keep(rule, s, **usual) != _keep(rule, s, **changed)).any()
    for s in signals
  )
  assert set(row.reads) <= set(_FIELDS)
  if field in row.reads:
    assert differs
  elif not (row.gated and field in APPLIES_TO):
    assert not differs


@_ROWS
@_few
@given(signals=_signals)
def test_open_thresholds_make_every_rule_none(rule, signals):
  bounds = dataclasses.asdict(trust_regions.open_thresholds())
  np.testing.assert_array_equal(
    _keep(rule, signals, **bounds), _keep('none', signals)
  )
  np.testing.assert_array_equal(_keep('none', signals), signals.mask)


@_ROWS
@_few
@given(signals=_signals)
def test_a_policy_that_has_not_moved_is_kept(rule, signals):
  still = dataclasses.replace(
    signals,
    anchor_log_probs=signals.log_probs,
    divergence=np.zeros(_SHAPE, np.float32),
  )
  keep = _keep(rule, still, direction='any')
  np.testing.assert_array_equal(keep, signals.mask)


def test_the_entropy_allows_a_ratio():
  signals = _row([1, 1, 1], [-1.0, -1.3, -1.3], [-1.2] * 3, [0] * 3)
  # (log r)^2 is .04, .01, .01; only tokens that move away are bound.
  keep = _keep('estr', signals, tau_entropy=0.03)
  np.testing.assert_array_equal(keep, [[0.0, 1.0, 1.0]])
  keep = _keep('estr', signals, tau_entropy=0.005, direction='any')
  np.testing.assert_array_equal(keep, [[0.0, 0.0, 0.0]])
  keep = _keep('estr', signals, tau_entropy=0.05, direction='any')
  np.testing.assert_array_equal(keep, [[1.0, 1.0, 1.0]])
  bare = dataclasses.replace(signals, anchor_entropy=None)
  with pytest.raises(ValueError, match="'estr' needs the anchor's entropy"):
    _keep_exactly('estr', bare)


def _next(value, toward):
  return np.nextafter(np.float32(value), np.float32(toward))


@pytest.mark.parametrize('sign', [-1.0, 1.0])
@pytest.mark.parametrize('rule', ['divergence', 'cppo', 'trm_max', 'trm_mean'])
def test_a_divergence_on_the_bound_is_kept(rule, sign):
  bound = np.float32(0.15)
  # Responses of one token: what a token may do is what a response may.
  on, above = (
    _row([sign], [-2 + sign], [-2], [d]) for d in (bound, _next(bound, 1))
  )
  other = 0.9 if sign > 0 else 0.0
  bounds = dict(
    delta_low=other if sign > 0 else float(bound),
    delta_high=float(bound) if sign > 0 else 1.0,
  )
  assert _keep_exactly(rule, on, **bounds) == 1.0
  assert _keep_exactly(rule, above, **bounds) == 0.0


@pytest.mark.parametrize('rule', ['ratio_clip', 'dual_clip', 'gspo'])
def test_a_ratio_on_the_bound_is_kept(rule):
  up, down = _row([1], [-0.5], [-1], [0]), _row([-1], [-1.5], [-1], [0])
  high, low = (
    float(trust_regions.ratio(s.log_probs, s.anchor_log_probs)[0, 0])
    for s in (up, down)
  )
  tight = dict(clip_low=1 - low, clip_high=high - 1)
  tighter = dict(clip_low=1 - low - 1e-6, clip_high=high - 1 - 1e-6)
  for bounds, want in ((tight, 1.0), (tighter, 0.0)):
    assert _keep_exactly(rule, up, **bounds) == want
    assert _keep_exactly(rule, down, **bounds) == want


def test_a_ratio_on_the_bound_of_dual_clip_is_kept():
  signals = _row([-1], [-1], [-2], [0])
  r = float(trust_regions.ratio(*jnp.array([-1.0, -2.0])))
  assert _keep_exactly('dual_clip', signals, dual_clip=r) == 1.0
  assert _keep_exactly('dual_clip', signals, dual_clip=r - 1e-6) == 0.0


def test_a_loss_of_the_bound_is_a_bad_update():
  # The one bound that is not strict: mu - pi = 1/2 exactly.
  signals = _row([-1], [-np.inf], [np.log(0.5)], [0])
  lost = float(jnp.exp(signals.anchor_log_probs)[0, 0])
  assert lost == pytest.approx(0.5)
  assert _keep_exactly('mask_bad_updates', signals, delta_low=lost) == 0.0
  above = float(_next(lost, 1))
  assert _keep_exactly('mask_bad_updates', signals, delta_low=above) == 1.0


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
  bounds = factories.bounds(delta_low=delta, delta_high=delta)
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
    bounds = factories.bounds(**_BOUNDS)
    return jnp.sum(trust_regions.keep_weights(rule, signals, bounds))

  gradients = jax.grad(total, argnums=(0, 1))(
    _BY_HAND.log_probs, _BY_HAND.divergence
  )
  for gradient in gradients:
    np.testing.assert_array_equal(gradient, 0.0)


def test_not_even_a_soft_rule_has_a_gradient(monkeypatch):
  def soft(signals, bounds):
    del bounds
    return jax.nn.sigmoid(signals.log_probs)

  row = trust_regions.TrustRegion(soft, (), 'token', False)
  monkeypatch.setitem(trust_regions.TRUST_REGIONS, 'soft', row)
  test_keep_has_no_gradient('soft')


def test_signals_must_agree_in_shape():
  bounds = factories.bounds()
  for field in dataclasses.fields(Signals):
    value = getattr(_BY_HAND, field.name)
    for wrong in (value[:, :1], value[0]):
      signals = dataclasses.replace(_BY_HAND, **{field.name: wrong})
      with pytest.raises(AssertionError):
        trust_regions.keep_weights('none', signals, bounds)
  flat = jax.tree.map(lambda x: x[0], _BY_HAND)
  with pytest.raises(AssertionError):
    trust_regions.keep_weights('none', flat, bounds)


def test_unknown_rule():
  with pytest.raises(KeyError):
    trust_regions.keep_weights('clip', _BY_HAND, factories.bounds())
