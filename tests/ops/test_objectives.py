"""Losses by their gradients: the family of eq. 23, and what it contains."""

import functools

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import TokenStats
from dppo_jax.ops import objectives
from dppo_jax.ops.divergences import DIVERGENCES
from dppo_jax.ops.masking import aggregation_weights
from dppo_jax.ops.objectives import FORMS, KL_ESTIMATORS, importance_weight
from dppo_jax.ops.ratios import ratio, sequence_ratio
from dppo_jax.ops.trust_regions import (
  TRUST_REGIONS,
  Signals,
  keep_weights,
)
from tests.support import factories
from tests.support.examples import examples

_few = examples(15)
_SHAPE = (2, 4)
_BOUNDS = factories.bounds(delta_high=0.2, clip_high=0.28, dual_clip=1.7)
_BOUNDLESS = factories.bounds(
  delta_low=np.inf,
  delta_high=np.inf,
  clip_low=np.inf,
  clip_high=np.inf,
  dual_clip=np.inf,
  budget=np.inf,
)
_log_probs = hnp.arrays(np.float32, _SHAPE, elements=st.floats(-3, 0, width=16))
_advantages = hnp.arrays(
  np.float32, _SHAPE, elements=st.sampled_from([-1.0, -0.25, 0.0, 0.5, 2.0])
)
_forms = pytest.mark.parametrize('form', FORMS)


@functools.cache
def _gradient_fn(form):
  def loss(log_probs, rollout, advantages, keep, cap, floor):
    # The weight moves with log pi; it must not be differentiated.
    weight = importance_weight(ratio(log_probs, rollout), floor, cap)
    return jnp.sum(FORMS[form](log_probs, weight, advantages, keep))

  return jax.jit(jax.grad(loss))


def _gradient(form, log_probs, rollout, advantages, keep, cap, floor=0.0):
  gradient = _gradient_fn(form)(
    log_probs, rollout, advantages, keep, cap, floor
  )
  return np.asarray(gradient, np.float64)


@functools.partial(jax.jit, static_argnums=4)
def _keeps(log_probs, anchor, advantages, divergence, bounds):
  """M of every rule, by its name: one program."""
  signals = Signals(
    advantages=advantages,
    log_probs=log_probs,
    anchor_log_probs=anchor,
    divergence=divergence,
    mask=jnp.ones(log_probs.shape, bool),
    anchor_entropy=jnp.ones(log_probs.shape),
  )
  return {rule: keep_weights(rule, signals, bounds) for rule in TRUST_REGIONS}


def _keep(rule, log_probs, anchor, advantages, divergence, bounds=_BOUNDS):
  return _keeps(log_probs, anchor, advantages, divergence, bounds)[rule]


def _total_variation(log_probs, anchor):
  return np.abs(np.exp(log_probs) - np.exp(anchor))


def test_values_by_hand():
  # Ratios 1/2, 1 and 4; the cap of 2 binds on the last.
  log_probs = jnp.log(jnp.array([[0.25, 0.5, 0.8, 0.5]]))
  rollout = jnp.log(jnp.array([[0.5, 0.5, 0.2, 0.5]]))
  advantages = jnp.array([[1.0, -1.0, 3.0, 5.0]])
  keep = jnp.array([[1.0, 0.5, 1.0, 0.0]])
  weights = np.array([[-0.5, 0.5, -6.0, 0.0]])
  capped = importance_weight(ratio(log_probs, rollout), 0.0, 2.0)
  np.testing.assert_allclose(capped, [[0.5, 1.0, 2.0, 1.0]], rtol=1e-6)
  score = FORMS['score'](log_probs, capped, advantages, keep)
  np.testing.assert_allclose(score, weights * log_probs, rtol=1e-6)
  surrogate = FORMS['surrogate'](log_probs, capped, advantages, keep)
  np.testing.assert_allclose(surrogate, weights, rtol=1e-6)
  for form in FORMS:
    gradient = _gradient(form, log_probs, rollout, advantages, keep, 2.0)
    np.testing.assert_allclose(gradient, weights, rtol=1e-6)


@pytest.mark.parametrize(
  ('floor', 'cap'),
  [(0.0, np.inf), (0.0, 3.0), (0.0, 1.0), (0.0, 0.5), (0.5, 1.5), (2.0, 2.0)],
)
@_few
@given(
  log_probs=_log_probs,
  rollout=_log_probs,
  advantages=_advantages,
  keep=hnp.arrays(np.float32, _SHAPE, elements=st.sampled_from([0, 0.5, 1])),
)
def test_both_forms_have_the_gradient_of_the_family(
  floor, cap, log_probs, rollout, advantages, keep
):
  r = np.exp(log_probs.astype(np.float64) - rollout)
  want = -keep * np.clip(r, floor, cap) * advantages
  for form in FORMS:
    got = _gradient(form, log_probs, rollout, advantages, keep, cap, floor)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@_forms
def test_gradient_survives_above_the_cap(form):
  one = jnp.ones((1, 1))
  for advantage in (1.0, -1.0):
    got = _gradient(form, -0.1 * one, -5.0 * one, advantage * one, one, 3.0)
    np.testing.assert_allclose(got, -3.0 * advantage, rtol=1e-6)


@_forms
@pytest.mark.parametrize('gap', [79.0, 80.0, 85.0])
def test_gradient_survives_however_far_the_policy_moved(form, gap):
  one = jnp.ones((1, 1))
  got = _gradient(form, 0.0 * one, -gap * one, one, one, 3.0)
  np.testing.assert_allclose(got, -3.0, rtol=1e-6)


@_forms
def test_everything_but_the_policy_is_a_constant(form):
  values = [jnp.full((1, 2), v) for v in (-1.0, 2.0, 0.5, 1.0)]

  def loss(weight, advantages, keep):
    return jnp.sum(FORMS[form](values[0], weight, advantages, keep))

  for gradient in jax.grad(loss, argnums=(0, 1, 2))(*values[1:]):
    np.testing.assert_array_equal(gradient, 0.0)


@_forms
def test_rollout_is_a_constant(form):
  one = jnp.ones((1, 2))

  def loss(rollout):
    weight = importance_weight(ratio(-one, rollout), 0.0, 9.0)
    return jnp.sum(FORMS[form](-one, weight, one, one))

  np.testing.assert_array_equal(jax.grad(loss)(-2.0 * one), 0.0)


@jax.jit
@jax.grad
def _ppo_gradient(log_probs, rollout, advantages):
  """Of the classical surrogate, the minimum of r A and clip(r) A.

  This is the formula of `rlax.clipped_surrogate_pg_loss`, written out: the
  package is no dependency of ours.
  """
  r = jnp.exp(log_probs - rollout)
  clipped = jnp.clip(r, 1 - _BOUNDS.clip_low, 1 + _BOUNDS.clip_high)
  return -jnp.sum(jnp.minimum(r * advantages, clipped * advantages))


@_forms
@_few
@given(log_probs=_log_probs, rollout=_log_probs, advantages=_advantages)
def test_ratio_clip_is_ppo(form, log_probs, rollout, advantages):
  divergence = _total_variation(log_probs, rollout)
  keep = _keep('ratio_clip', log_probs, rollout, advantages, divergence)
  got = _gradient(form, log_probs, rollout, advantages, keep, np.inf)
  want = _ppo_gradient(log_probs, rollout, advantages)
  np.testing.assert_allclose(got, want, rtol=1e-6)


@jax.jit
@jax.grad
def _dual_clip_gradient(log_probs, rollout, advantages):
  """Of arXiv:1912.09729, eq. 5: max(min(r A, clip(r) A), c A) for A < 0."""
  r = jnp.exp(log_probs - rollout)
  clipped = jnp.clip(r, 1 - _BOUNDS.clip_low, 1 + _BOUNDS.clip_high)
  ppo = jnp.minimum(r * advantages, clipped * advantages)
  dual = jnp.maximum(ppo, _BOUNDS.dual_clip * advantages)
  return -jnp.sum(jnp.where(advantages < 0, dual, ppo))


@_forms
@_few
@given(log_probs=_log_probs, rollout=_log_probs, advantages=_advantages)
def test_dual_clip_is_that_of_its_paper(form, log_probs, rollout, advantages):
  nothing = np.zeros(_SHAPE, np.float32)
  keep = _keep('dual_clip', log_probs, rollout, advantages, nothing)
  got = _gradient(form, log_probs, rollout, advantages, keep, np.inf)
  want = _dual_clip_gradient(log_probs, rollout, advantages)
  np.testing.assert_allclose(got, want, rtol=1e-6)


@jax.jit
@jax.grad
def _cispo_gradient(log_probs, rollout, advantages):
  """Of arXiv:2506.13585: -sg(clip(r, 1 - low, 1 + high)) A log pi."""
  r = jnp.exp(log_probs - rollout)
  clipped = jax.lax.stop_gradient(jnp.clip(r, 0.4, 1.5))
  return -jnp.sum(clipped * advantages * log_probs)


@_forms
@_few
@given(log_probs=_log_probs, rollout=_log_probs, advantages=_advantages)
def test_cispo_is_that_of_its_paper(form, log_probs, rollout, advantages):
  nothing = np.zeros(_SHAPE, np.float32)
  keep = _keep('none', log_probs, rollout, advantages, nothing)
  got = _gradient(form, log_probs, rollout, advantages, keep, 1.5, 0.4)
  want = _cispo_gradient(log_probs, rollout, advantages)
  np.testing.assert_allclose(got, want, rtol=1e-6)


@jax.jit
@jax.grad
def _sapo_gradient(log_probs, rollout, advantages):
  """Of arXiv:2511.20347: -f(r) A, f(r) = 4 / tau sigmoid(tau (r - 1))."""
  r = jnp.exp(log_probs - rollout)
  tau = jnp.where(advantages > 0, _BOUNDS.tau_high, _BOUNDS.tau_low)
  return -jnp.sum(4.0 / tau * jax.nn.sigmoid(tau * (r - 1.0)) * advantages)


@_forms
@_few
@given(log_probs=_log_probs, rollout=_log_probs, advantages=_advantages)
def test_sapo_is_that_of_its_paper(form, log_probs, rollout, advantages):
  nothing = np.zeros(_SHAPE, np.float32)
  keep = _keep('sapo', log_probs, rollout, advantages, nothing)
  got = _gradient(form, log_probs, rollout, advantages, keep, np.inf)
  want = _sapo_gradient(log_probs, rollout, advantages)
  np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-7)


_GSPO_MASK = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool)


@jax.jit
@jax.grad
def _gspo_gradient(log_probs, rollout, advantages):
  """Of arXiv:2507.18071: the clipped surrogate of s = (pi(y) / mu(y))^(1/T)."""
  log_ratio = jnp.where(_GSPO_MASK, log_probs - rollout, 0.0).sum(1)
  s = jnp.exp(log_ratio / _GSPO_MASK.sum(1))
  clipped = jnp.clip(s, 1 - _BOUNDS.clip_low, 1 + _BOUNDS.clip_high)
  a = advantages[:, 0]
  return -jnp.mean(jnp.minimum(s * a, clipped * a))


@functools.partial(jax.jit, static_argnums=0)
def _our_gspo_gradient(form, log_probs, rollout, advantages):
  signals = Signals(
    advantages=advantages,
    log_probs=log_probs,
    anchor_log_probs=rollout,
    divergence=jnp.zeros(_SHAPE),
    mask=_GSPO_MASK,
  )
  keep = keep_weights('gspo', signals, _BOUNDS)

  def loss(log_probs):
    s = sequence_ratio(log_probs, rollout, _GSPO_MASK)
    weight = importance_weight(s, 0.0, np.inf)
    per_token = FORMS[form](log_probs, weight, advantages, keep)
    shares = aggregation_weights(_GSPO_MASK, 'sequence_mean_token_mean', 1.0)
    return jnp.sum(shares * per_token)

  return jax.grad(loss)(log_probs)


@_forms
@pytest.mark.parametrize('spread', [0.2, 1.0])
def test_gspo_is_that_of_its_paper(form, spread):
  rng = np.random.default_rng(0)
  masked = 0
  for _ in range(20):
    rollout = rng.uniform(-3, -1, _SHAPE).astype(np.float32)
    moved = rng.normal(size=_SHAPE) * spread
    log_probs = (rollout + moved).astype(np.float32)
    advantages = np.repeat(rng.choice([-1.0, 0.5], (2, 1)), 4, 1)
    advantages = advantages.astype(np.float32)
    got = _our_gspo_gradient(form, log_probs, rollout, advantages)
    want = np.asarray(_gspo_gradient(log_probs, rollout, advantages))
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-8)
    masked += (want[:, 0] == 0).sum()
  assert 0 < masked < 40


@_forms
@_few
@given(log_probs=_log_probs, rollout=_log_probs, advantages=_advantages)
def test_without_bounds_the_gradient_is_pg_is(
  form, log_probs, rollout, advantages
):
  divergence = _total_variation(log_probs, rollout)
  pg_is = _gradient(
    form, log_probs, rollout, advantages, np.ones(_SHAPE, np.float32), np.inf
  )
  for rule in ('ratio_clip', 'dual_clip', 'divergence', 'cppo', 'trm_max'):
    keep = _keep(rule, log_probs, rollout, advantages, divergence, _BOUNDLESS)
    got = _gradient(form, log_probs, rollout, advantages, keep, np.inf)
    np.testing.assert_array_equal(got, pg_is)


@_forms
@_few
@given(log_probs=_log_probs, advantages=_advantages)
def test_on_policy_is_reinforce(form, log_probs, advantages):
  nothing = np.zeros(_SHAPE, np.float32)
  keeps = _keeps(log_probs, log_probs, advantages, nothing, _BOUNDS)
  for rule, keep in keeps.items():
    got = _gradient(form, log_probs, log_probs, advantages, keep, np.inf)
    np.testing.assert_array_equal(got, -advantages, rule)


_EDGES = np.array([0.0, -1e-7, -1.0, -20.0, -80.0])
# The recorded ids of every row: the sampled token, 0, is listed or is not.
_RECORDED = {
  'nothing': [[0]],
  'top_k': [[0, 1], [1, 2]],
  'hidden': [[0, 1, 2]],
}


def _edge_stats(log_p, top_ids, dtype):
  """Three tokens, 0 sampled; the other two share what it leaves."""
  rest = np.log(np.maximum(-np.expm1(log_p), 1e-39) / 2)
  every = np.stack([log_p, rest, rest], axis=-1)
  return TokenStats(
    log_probs=log_p.astype(dtype),
    top_ids=np.tile(np.array(top_ids), (*log_p.shape, 1)),
    top_log_probs=every[..., top_ids].astype(dtype),
  )


@jax.jit
def _edge_losses(log_probs, anchor, advantages, divergence):
  """(gradient, loss per token) of every (rule, form)."""
  keeps = _keeps(log_probs, anchor, advantages, divergence, _BOUNDS)

  def total(form, keep, log_probs):
    weight = importance_weight(ratio(log_probs, anchor), 0.0, np.inf)
    per_token = FORMS[form](log_probs, weight, advantages, keep)
    return jnp.sum(per_token), per_token

  return {
    (rule, form): jax.grad(
      functools.partial(total, form, keep.astype(log_probs.dtype)), has_aux=True
    )(log_probs)
    for rule, keep in keeps.items()
    for form in FORMS
  }


def _assert_finite(arrays, what):
  for array in jax.tree.leaves(arrays):
    assert np.isfinite(np.asarray(array, np.float32)).all(), what


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize(
  ('name', 'top_ids'),
  [(name, i) for name, r in DIVERGENCES.items() for i in _RECORDED[r.records]],
)
def test_finite_on_the_edges(name, top_ids, dtype):
  """Every divergence, rule and form where log p is 0, near it, or -80."""
  dtype = jnp.dtype(dtype)
  # Each pair of log-probs with A < 0, A = 0 and A > 0.
  log_mu, log_pi = (
    np.tile(x.reshape(1, -1), (3, 1)) for x in np.meshgrid(_EDGES, _EDGES)
  )
  advantages = np.repeat([[-1.0], [0.0], [1.0]], 25, axis=1).astype(dtype)
  anchor = _edge_stats(log_mu, top_ids, dtype)
  current = _edge_stats(log_pi, top_ids, dtype)

  @jax.jit
  @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
  def measure(log_probs, top_log_probs):
    stats = TokenStats(
      log_probs=log_probs, top_ids=anchor.top_ids, top_log_probs=top_log_probs
    )
    tokens = jnp.zeros(log_probs.shape, int)
    per_token = DIVERGENCES[name].fn(tokens, anchor, stats)
    return jnp.sum(per_token), per_token

  gradient, divergence = measure(current.log_probs, current.top_log_probs)
  _assert_finite((gradient, divergence), name)
  losses = _edge_losses(
    current.log_probs, anchor.log_probs, advantages, divergence
  )
  assert len(losses) == len(TRUST_REGIONS) * len(FORMS)
  for which, found in losses.items():
    _assert_finite(found, which)


def _two_laws():
  generator = np.random.default_rng(1)
  logits = jnp.asarray(generator.normal(size=5), jnp.float32)
  reference = jax.nn.log_softmax(
    jnp.asarray(generator.normal(size=5), jnp.float32)
  )
  return logits, reference


def _kl(logits, reference):
  log_probs = jax.nn.log_softmax(logits)
  return jnp.sum(jnp.exp(log_probs) * (log_probs - reference))


@pytest.mark.parametrize('name', KL_ESTIMATORS)
def test_estimator_has_the_kl_as_its_mean(name):
  logits, reference = _two_laws()
  log_probs = jax.nn.log_softmax(logits)
  mean = jnp.sum(jnp.exp(log_probs) * KL_ESTIMATORS[name](log_probs, reference))
  assert mean > 0.1
  np.testing.assert_allclose(mean, _kl(logits, reference), rtol=1e-5)


def test_k1_is_the_log_ratio_and_pulls_with_the_gradient_of_the_kl():
  k1 = KL_ESTIMATORS['k1']
  logits, reference = _two_laws()
  log_probs = jax.nn.log_softmax(logits)
  log_ratio = log_probs - reference
  per_token, pull = jax.vjp(lambda x: k1(x, reference), log_probs)
  np.testing.assert_array_equal(per_token, log_ratio)
  np.testing.assert_array_equal(*pull(jnp.ones(5)), log_ratio)

  def mean_over_samples(logits):
    sampled = jax.lax.stop_gradient(jax.nn.softmax(logits))
    estimate = k1(jax.nn.log_softmax(logits), reference)
    return jnp.sum(sampled * estimate)

  want = jax.jit(jax.grad(_kl))(logits, reference)
  assert np.abs(want).max() > 0.05
  np.testing.assert_allclose(
    jax.jit(jax.grad(mean_over_samples))(logits), want, atol=1e-6
  )


def test_k3_is_positive_and_zero_at_the_reference():
  k3 = KL_ESTIMATORS['k3']
  logits, reference = _two_laws()
  log_probs = jax.nn.log_softmax(logits)
  assert (k3(log_probs, reference) > 0).all()
  np.testing.assert_array_equal(k3(reference, reference), 0.0)
  # e**0.5 - 1 - 0.5 at log(ref / pi) = 0.5.
  np.testing.assert_allclose(
    k3(jnp.array(-1.5), jnp.array(-1.0)), 0.1487213, rtol=1e-5
  )


def test_k3_is_finite_far_from_the_reference():
  value, gradient = jax.jit(jax.value_and_grad(objectives.k3))(-300.0, 0.0)
  assert np.isfinite(value)
  assert np.isfinite(gradient)


@_forms
def test_arguments_must_agree_in_shape(form):
  whole, column = jnp.ones((2, 3)), jnp.ones((2, 1))
  for wrong in range(4):
    arguments = [column if i == wrong else whole for i in range(4)]
    with pytest.raises(AssertionError):
      FORMS[form](*arguments)
