"""What holds of every rule.

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

from dppo_jax.base import TokenStats
from dppo_jax.ops import divergences, trust_regions
from dppo_jax.ops.trust_regions import TRUST_REGIONS, Signals
from tests.support import factories, rule_cases
from tests.support.examples import examples

_few = examples(10)
_SHAPE = (3, 4)
_GATED = [rule for rule, row in TRUST_REGIONS.items() if row.gated]
# The rows that `applies_to` gates; dual_clip calls it itself.
_ASKING = [*_GATED, 'dual_clip']


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


# The properties hold of each row: all see the same examples.


@_few
@given(signals=_signals)
def test_keep_is_a_weight_without_what_is_masked(signals):
  poisoned = rule_cases.keeps(_poison_masked(signals))
  for rule, keep in rule_cases.keeps(signals).items():
    assert keep.shape == _SHAPE, rule
    assert keep.dtype == np.float32, rule
    row = TRUST_REGIONS[rule]
    assert row.signed or ((keep >= 0) & (keep <= 1)).all(), rule
    if rule not in {'sapo', 'cppo_soft'} and not row.signed:
      assert np.isin(keep, [0.0, 1.0]).all(), rule
    np.testing.assert_array_equal(keep * ~signals.mask, 0.0, rule)
    np.testing.assert_array_equal(poisoned[rule], keep, rule)


@_few
@given(signals=_signals)
def test_moves_toward_the_anchor_are_kept(signals):
  safe = ~_moves_away(signals) & signals.mask
  keeps = rule_cases.keeps(signals)
  for rule in _GATED:  # Others ask for no direction, or for one of their own.
    np.testing.assert_array_equal(keeps[rule][safe], 1.0, rule)


@_few
@given(signals=_signals)
def test_a_side_masks_that_sign_alone(signals):
  both = rule_cases.keeps(signals, direction='any')
  for side, of_side in (
    ('negative', signals.advantages < 0),
    ('positive', signals.advantages > 0),
  ):
    got = rule_cases.keeps(signals, direction='any', advantage_sign=side)
    for rule in _ASKING:
      want = np.where(of_side, both[rule], 1.0) * signals.mask
      np.testing.assert_array_equal(got[rule], want, rule)


@_few
@given(signals=_signals)
def test_either_direction_masks_the_same_and_more(signals):
  sign_blind = rule_cases.keeps(signals, direction='any')
  rising = np.asarray(signals.advantages) * np.asarray(signals.rate) > 0
  for direction, applies in (
    ('away', _moves_away(signals)),
    ('predictive', rising),
  ):
    got = rule_cases.keeps(signals, direction=direction)
    for rule in _GATED:
      want = np.where(applies, sign_blind[rule], 1.0) * signals.mask
      np.testing.assert_array_equal(got[rule], want, rule)


@_few
@given(
  signals=_signals,
  low=st.sampled_from([0.0, 0.11, 0.43, 1.0]),
  high=st.sampled_from([0.0, 0.11, 0.43, 1.0]),
)
def test_relaxed_tokens_are_exempt(signals, low, high):
  mu = np.exp(signals.anchor_log_probs)
  exempt = (signals.advantages < 0) & (mu < low)
  exempt |= (signals.advantages > 0) & (mu < high)
  any_way = functools.partial(
    rule_cases.keeps, signals, direction='any', dual_clip=1.1
  )
  tight, got = any_way(), any_way(alpha_low=low, alpha_high=high)
  for rule in _ASKING:
    want = np.where(exempt, 1.0, tight[rule]) * signals.mask
    np.testing.assert_array_equal(got[rule], want, rule)


@_few
@given(signals=_signals)
def test_padding_changes_nothing(signals):
  keeps = rule_cases.keeps(signals)
  for before, after in ((0, 3), (2, 1)):
    padded = jax.tree.map(
      lambda x, width=(before, after): np.pad(
        x,
        [(0, 0), width],
        constant_values=False if x.dtype == bool else np.nan,
      ),
      signals,
    )
    for rule, got in rule_cases.keeps(padded).items():
      inside = got[:, before : before + 4]
      np.testing.assert_array_equal(inside, keeps[rule], rule)
      np.testing.assert_array_equal(got[:, :before], 0.0, rule)
      np.testing.assert_array_equal(got[:, before + 4 :], 0.0, rule)


@_few
@given(signals=_signals, order=st.permutations(range(_SHAPE[0])))
def test_rows_do_not_know_each_other(signals, order):
  order = np.array(order)
  shuffled = rule_cases.keeps(jax.tree.map(lambda x: x[order], signals))
  alone = rule_cases.keeps(jax.tree.map(lambda x: x[:1], signals))
  for rule, keep in rule_cases.keeps(signals).items():
    np.testing.assert_array_equal(shuffled[rule], keep[order], rule)
    np.testing.assert_array_equal(alone[rule], keep[:1], rule)


@_few
@given(signals=_signals, other=_signals)
def test_row_sees_no_further_than_its_scope(signals, other):
  later = rule_cases.keeps(rule_cases.exchange(signals, other, slice(2, None)))
  earlier = rule_cases.exchange(signals, other, slice(0, 3))
  earlier = rule_cases.keeps(
    dataclasses.replace(earlier, mask=np.ones(_SHAPE, bool))
  )
  for rule, keep in rule_cases.keeps(signals).items():
    scope = TRUST_REGIONS[rule].scope
    if scope != 'sequence':
      np.testing.assert_array_equal(later[rule][:, :2], keep[:, :2], rule)
    if scope == 'token':
      got = earlier[rule][:, 3] * signals.mask[:, 3]
      np.testing.assert_array_equal(got, keep[:, 3], rule)


@_few
@given(signals=_signals)
def test_open_thresholds_make_every_rule_none(signals):
  bounds = dataclasses.asdict(trust_regions.open_thresholds())
  none = rule_cases.keep('none', signals)
  np.testing.assert_array_equal(none, signals.mask)
  for rule, keep in rule_cases.keeps(signals, **bounds).items():
    np.testing.assert_array_equal(keep, none, rule)


@_few
@given(signals=_signals)
def test_a_policy_that_has_not_moved_is_kept(signals):
  still = dataclasses.replace(
    signals,
    anchor_log_probs=signals.log_probs,
    divergence=np.zeros(_SHAPE, np.float32),
  )
  for rule, keep in rule_cases.keeps(still, direction='any').items():
    np.testing.assert_array_equal(keep, signals.mask, rule)


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
