"""CPPO against the reference values, and an Algorithm 1 written as a loop."""

import functools

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.ops import cppo, trust_regions
from dppo_jax.ops.trust_regions import Signals
from tests.support import factories
from tests.support.examples import examples

_few = examples(15)
_ORDERS = pytest.mark.parametrize('order', ['linear', 'shuffled'])
_D = [0.04, 0.01, 0.0, 0.12, 0.02, 0.03, 0.16, 0.17]
_FIXED = [0.15, 0.13, 0.139714, 0.15, 0.067143, 0.067143, 0.058571, -0.057429]
_P90 = [0.15, 0.15, 0.15, 0.15, 0.143714, 0.15, 0.15, 0.070571]
_WIDTH = 9
_masks = hnp.arrays(np.bool_, (3, _WIDTH), elements=st.booleans())
_divergences = hnp.arrays(
  np.float32, (3, _WIDTH), elements=st.floats(0, 0.5, width=16)
)


_weights = jax.jit(cppo.position_weights, static_argnums=2)


_compiled_thresholds = jax.jit(cppo.thresholds)


@functools.partial(jax.jit, static_argnames='order')
def _prefix(divergence, mask, w_min=0.8, order='linear'):
  weights = cppo.position_weights(mask, w_min, order)
  return cppo.accumulate(divergence, weights, mask)


def _thresholds(prefix, delta, budget):
  delta = np.full(prefix.spent.shape, delta, np.float32)
  return np.asarray(_compiled_thresholds(prefix, delta, budget))


def _spread(row, mask, fill=0.0):
  """A row dealt out to the columns that count."""
  values = np.full(mask.shape, fill, np.float32)
  values[mask] = row
  return values


def _away(divergence, mask):
  """Every token moves away from the anchor, A > 0."""
  ones = np.ones(mask.shape, np.float32)
  return Signals(
    advantages=ones,
    log_probs=-ones,
    anchor_log_probs=-2.0 * ones,
    divergence=np.asarray(divergence, np.float32),
    mask=mask,
  )


_keep_weights = jax.jit(trust_regions.keep_weights, static_argnums=(0, 2))
_diagnostics = jax.jit(trust_regions.diagnostics, static_argnums=(0, 2))


def _keep(rule, signals, **overrides):
  fields = dict(delta_low=0.15, delta_high=0.15, w_min=0.8, budget=0.02)
  bounds = factories.bounds(**fields | overrides)
  return np.asarray(_keep_weights(rule, signals, bounds))


# The eight tokens as they are, padded, and with holes (tool output).
_LAYOUTS = {
  'bare': np.ones((1, 8), bool),
  'padded': np.arange(150)[None] < 8,
  'late': np.arange(14)[None] >= 6,
  'holes': np.array([[0, 1, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0, 1]], bool),
}
_layouts = pytest.mark.parametrize('layout', _LAYOUTS)


@_layouts
def test_reference_values_of_a_fixed_budget(layout):
  mask = _LAYOUTS[layout]
  divergence = _spread(_D, mask, np.nan)
  got = _thresholds(_prefix(divergence, mask), 0.15, 0.02)[mask]
  np.testing.assert_allclose(got, _FIXED, rtol=0, atol=1e-6)
  keep = _keep('cppo', _away(divergence, mask))
  np.testing.assert_array_equal(keep[mask], [1, 1, 1, 1, 1, 1, 0, 0])
  np.testing.assert_array_equal(keep[~mask], 0.0)


@_layouts
def test_reference_values_of_a_dynamic_budget(layout):
  mask = _LAYOUTS[layout]
  divergence = _spread(_D, mask, np.nan)
  budget = cppo.dynamic_budget(divergence, mask, 0.02)
  assert budget.shape == (1, 1)
  np.testing.assert_allclose(budget, 0.04)  # P90 is .163.
  got = _thresholds(_prefix(divergence, mask), 0.15, budget)[mask]
  np.testing.assert_allclose(got, _P90, rtol=0, atol=1e-6)
  keep = _keep('cppo_dynamic', _away(divergence, mask))
  np.testing.assert_array_equal(keep[mask], [1, 1, 1, 1, 1, 1, 1, 0])


@_layouts
def test_diagnostics_by_hand(layout):
  mask = _LAYOUTS[layout]
  signals = _away(_spread(_D, mask, np.nan), mask)
  bounds = factories.bounds(
    delta_low=0.15, delta_high=0.15, w_min=0.8, budget=0.02
  )
  # Z_7 = .1326 and Z_8 = .136: the bound of a token would have kept both.
  for rule, budget, spent in (
    ('cppo', 0.02, [0, 0, 0, 0, 0, 0, 1, 1]),
    ('cppo_dynamic', 0.04, [0, 0, 0, 0, 0, 0, 0, 1]),
  ):
    got = _diagnostics(rule, signals, bounds)
    assert set(got) == {'cppo/budget_effective', 'cppo/masked_by_budget'}
    np.testing.assert_allclose(got['cppo/budget_effective'][mask], budget)
    np.testing.assert_array_equal(got['cppo/masked_by_budget'][mask], spent)
    for values in got.values():
      assert values.dtype == jnp.float32
      np.testing.assert_array_equal(values[~mask], 0.0)


def test_diagnostics_leave_out_what_a_token_did_alone():
  # Z_1 > delta; then the budget is spent; the third moves toward the anchor.
  mask = np.ones((1, 3), bool)
  signals = _away([[0.9, 0.05, 0.05]], mask)
  signals.log_probs[0, 2] = -3.0
  bounds = factories.bounds(w_min=1.0, budget=0.02)
  got = _diagnostics('cppo', signals, bounds)
  np.testing.assert_array_equal(got['cppo/masked_by_budget'], [[0, 1, 0]])
  either = factories.bounds(w_min=1.0, budget=0.02, direction='any')
  got = _diagnostics('cppo', signals, either)
  np.testing.assert_array_equal(got['cppo/masked_by_budget'], [[0, 1, 1]])


def test_only_some_rules_have_diagnostics():
  signals = _away([[0.1]], np.ones((1, 1), bool))
  for rule, row in trust_regions.TRUST_REGIONS.items():
    got = _diagnostics(rule, signals, factories.bounds())
    assert bool(got) == (row.diagnose is not None)


def test_weights_by_hand():
  mask = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 1, 1], [0, 0, 1, 0, 0]], bool)
  want = [[1.0, 0.9, 0.8, 0.7, 0.6], [0, 1, 0, 0.8, 0.6], [0, 0, 1, 0, 0]]
  got = _weights(mask, 0.6, 'linear')
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, want, rtol=1e-6)
  np.testing.assert_array_equal(_weights(mask, 1.0, 'linear'), mask)


@_ORDERS
def test_a_response_of_one_token_has_weight_one(order):
  mask = np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0]], bool)
  np.testing.assert_array_equal(_weights(mask, 0.3, order), mask)


def test_shuffled_weights_are_the_linear_ones_in_another_order():
  lengths = np.arange(41)
  mask = np.arange(40)[None] < lengths[:, None]
  linear = np.asarray(_weights(mask, 0.5, 'linear'))
  shuffled = np.asarray(_weights(mask, 0.5, 'shuffled'))
  np.testing.assert_array_equal(np.sort(shuffled), np.sort(linear))
  np.testing.assert_array_equal(shuffled[~mask], 0.0)
  # No trend is left, which is what the ablation is for.
  position = np.arange(40) - 19.5
  assert abs(np.corrcoef(shuffled[-1], position)[0, 1]) < 0.3
  assert np.corrcoef(linear[-1], position)[0, 1] < -0.99


def test_the_shuffled_order_is_part_of_a_run():
  # Another order would change the runs that are resumed with it.
  got = _weights(np.ones((1, 5), bool), 0.6, 'shuffled')
  np.testing.assert_allclose(got, [[0.9, 1.0, 0.7, 0.8, 0.6]], rtol=1e-6)


@_ORDERS
@_few
@given(mask=_masks)
def test_weights_depend_on_the_length_alone(order, mask):
  weights = np.asarray(_weights(mask, 0.7, order))
  for row, counted in zip(weights, mask, strict=True):
    alone = np.arange(_WIDTH)[None] < counted.sum()
    want = np.asarray(_weights(alone, 0.7, order))[alone]
    np.testing.assert_array_equal(row[counted], want)
    np.testing.assert_array_equal(row[~counted], 0.0)
  wide = np.pad(mask, [(0, 0), (4, 60)])
  got = np.asarray(_weights(wide, 0.7, order))[:, 4 : 4 + _WIDTH]
  np.testing.assert_array_equal(got, weights)


@_few
@given(divergence=_divergences, mask=_masks)
def test_prefix_by_hand(divergence, mask):
  prefix = _prefix(np.where(mask, divergence, np.nan), mask, 0.6)
  for b in range(3):
    length, spent, weight, t = mask[b].sum(), 0.0, 0.0, 0
    for column in range(_WIDTH):
      np.testing.assert_allclose(
        prefix.spent_before[b, column], spent, atol=1e-6
      )
      np.testing.assert_allclose(
        prefix.weight_before[b, column], weight, atol=1e-5
      )
      if mask[b, column]:
        w = 1.0 - 0.4 * t / max(length - 1, 1)
        np.testing.assert_allclose(
          prefix.weighted[b, column], w * divergence[b, column], atol=1e-6
        )
        spent, weight, t = spent + w * divergence[b, column], weight + w, t + 1
      else:
        assert prefix.weighted[b, column] == 0.0
      np.testing.assert_allclose(prefix.spent[b, column], spent, atol=1e-6)
      np.testing.assert_allclose(prefix.weight[b, column], weight, atol=1e-5)


@_few
@given(divergence=_divergences, mask=_masks)
def test_an_infinite_budget_leaves_the_bound_of_a_token(divergence, mask):
  for w_min in (1.0, 0.8):
    got = _thresholds(_prefix(divergence, mask, w_min), 0.15, np.inf)
    np.testing.assert_array_equal(got, np.float32(0.15))


def _signals_of(divergence, mask, sign):
  """Both signs of the advantage, tokens that move either way."""
  signals = _away(divergence, mask)
  moved = np.where(np.arange(divergence.size).reshape(mask.shape) % 3, 1, -1)
  return Signals(
    advantages=sign * signals.advantages,
    log_probs=(signals.anchor_log_probs + 0.5 * moved).astype(np.float32),
    anchor_log_probs=signals.anchor_log_probs,
    divergence=divergence,
    mask=mask,
  )


@pytest.mark.parametrize('rule', ['cppo', 'cppo_dynamic', 'cppo_soft'])
@pytest.mark.parametrize('sign', [-1.0, 1.0])
def test_cppo_without_weights_and_budget_is_dppo(rule, sign):
  rng = np.random.default_rng(0)
  divergence = rng.uniform(0, 0.4, (50, 9)).astype(np.float32)
  mask = rng.uniform(size=(50, 9)) < 0.8
  signals = _signals_of(divergence, mask, np.float32(sign))
  bounds = dict(delta_low=0.1, delta_high=0.2, w_min=1.0, budget=np.inf)
  got = _keep(rule, signals, **bounds)
  want = _keep('divergence', signals, **bounds)
  assert 0 < (want[mask] == 0).sum() < mask.sum()
  if rule == 'cppo_soft':  # It weighs less where the other masks.
    got = np.where(got < 1, 0.0, 1.0)
  np.testing.assert_array_equal(got, want)


def test_tokens_that_are_masked_or_kept_for_their_direction_are_spent():
  # Token 1 is masked, token 2 moves toward mu; both use up the budget.
  mask = np.ones((1, 4), bool)
  signals = _away([[0.30, 0.20, 0.05, 0.05]], mask)
  signals.log_probs[0, 1] = -3.0
  want = {0.1: [0, 1, 0, 0], 0.3: [0, 1, 1, 1], 0.15: [0, 1, 0, 1]}
  for budget, kept in want.items():
    got = _keep('cppo', signals, w_min=1.0, budget=budget)
    np.testing.assert_array_equal(got, [kept])


def test_soft_gate_by_hand():
  # w = 1, .75, .5; Z = .3, .06, .2; S = .3, .36, .56; W before = 0, 1, 1.75.
  mask = np.array([[1, 1, 0, 1, 0]], bool)
  divergence = np.array([[0.3, 0.08, np.nan, 0.4, np.nan]], np.float32)
  prefix = _prefix(divergence, mask, 0.5)
  gate = cppo.soft_gate(prefix, jnp.full((1, 5), 0.1), 0.2)
  # x = max(3, 3), max(.6, .36 / .3), max(2, .56 / .45).
  want = [1 / 3, 1 / 1.2, 1 / 2]
  np.testing.assert_allclose(gate[mask], want, rtol=1e-6)
  small = cppo.soft_gate(prefix, jnp.full((1, 5), 0.7), 0.2)
  np.testing.assert_array_equal(small[mask], 1.0)
  got = _keep(
    'cppo_soft',
    _away(divergence, mask),
    delta_high=0.1,
    delta_low=9.0,
    w_min=0.5,
    budget=0.2,
  )
  np.testing.assert_allclose(got[mask], want, rtol=1e-6)


def test_soft_gate_without_a_budget_weighs_tokens_alone():
  mask = np.ones((1, 3), bool)
  prefix = _prefix(np.array([[0.2, 0.1, 0.4]], np.float32), mask, 1.0)
  gate = cppo.soft_gate(prefix, jnp.full((1, 3), 0.1), np.inf)
  # The first budget is delta alone; S_1 = Z_1.
  np.testing.assert_allclose(gate, [[0.5, 1.0, 0.25]], rtol=1e-6)


@pytest.mark.parametrize(
  ('divergence', 'want'),
  [
    ([0.0, 0.0, 0.0], 0.05),  # Clamped below.
    ([0.07, 0.07, 0.07], 0.07),
    ([0.05, 0.06, 0.075], 0.072),  # Between the second and the third.
    ([0.1, 0.2, 0.3], 0.1),  # Clamped above.
    ([0.08], 0.08),
    ([], 0.05),
  ],
)
def test_dynamic_budget_by_hand(divergence, want):
  mask = np.arange(5)[None] < len(divergence)
  values = _spread(divergence, mask, 9.0)
  got = cppo.dynamic_budget(values, mask, 0.05)
  np.testing.assert_allclose(got, [[want]], rtol=1e-6)


def test_each_response_has_a_dynamic_budget_of_its_own():
  values = np.array([[0.06] * 3, [0.08] * 3], np.float32)
  got = cppo.dynamic_budget(values, np.ones((2, 3), bool), 0.05)
  np.testing.assert_allclose(got, [[0.06], [0.08]])


def test_weights_refuse_what_is_not_a_batch():
  with pytest.raises(AssertionError):
    cppo.position_weights(jnp.ones(3, bool), 0.8, 'linear')
