"""One pass over the vocabulary against the definition, which holds [N, V]."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.learner import loss as loss_lib
from dppo_jax.lm_head import fused_loss
from dppo_jax.ops import divergences
from dppo_jax.ops.log_probs import LOWEST_LOG_PROB, token_stats
from dppo_jax.ops.trust_regions import TRUST_REGIONS
from tests.support import factories, head_cases
from tests.support.head_cases import loss_config


@pytest.fixture(scope='module')
def case():
  return head_cases.moved()


@pytest.fixture(scope='module')
def shared(case):
  configs = [
    *_OF_RULES.values(),
    *_OF_DIVERGENCES.values(),
    *map(_config, [*_TERMS, *head_cases.SUCCESSORS]),
  ]
  return head_cases.SharedPrograms(configs, case)


@pytest.fixture(scope='module')
def plain(case):
  """The plainest loss, compiled: (head, hidden, targets) to a result."""
  return head_cases.one_pass(loss_config())


def _config(overrides):
  return loss_config(**overrides)


# Rules of each scope; one is told the entropy of the anchor.
_DRIFTING = ('divergence', 'estr', 'cppo', 'trm_mean')


def _of_rule(rule):
  # A meter of many operations, the drift, is not of the recomputed anchor.
  anchor = 'rollout' if rule in _DRIFTING else 'recomputed'
  config = loss_config(rule=rule, anchor=anchor)
  if rule.startswith('trm_max'):  # The others ask less of the worst token.
    bounds = factories.bounds(delta_low=0.1, delta_high=0.1, budget=0.1)
    config = dataclasses.replace(config, bounds=bounds)
  if rule == 'spo':  # Else M, and with it the rounding, is five times larger.
    bounds = dataclasses.replace(config.bounds, soft_clip=1.0)
    config = dataclasses.replace(config, bounds=bounds)
  return config


_OF_RULES = {rule: _of_rule(rule) for rule in TRUST_REGIONS}
_OF_DIVERGENCES = {
  name: loss_config(divergence=name) for name in divergences.DIVERGENCES
}
_TERMS = [
  dict(entropy_coefficient=0.05),
  dict(entropy_coefficient=0.05, rule='cppo_dynamic'),
  dict(importance='sequence', rule='gspo'),
  dict(importance='none', rule='vespo'),
  dict(importance='least_prefix', rule='none'),
  dict(kl_coefficient=0.3, rule='cppo', anchor='recomputed'),
  dict(
    kl_coefficient=0.3,
    kl_estimator='k1',
    loss_form='surrogate',
    anchor='recomputed',
  ),
  dict(ratio_cap=1.01, loss_form='surrogate'),
  dict(top_k_set='replace_kth', divergence='topk_kl'),
  dict(divergence='exact_kl', anchor_slip=0.25),
]


@pytest.mark.parametrize('rule', TRUST_REGIONS)
def test_every_rule_is_the_rule_of_the_whole_logits(case, shared, rule):
  """Chunks of 5 of 27 tokens: responses are cut in the middle."""
  config = _OF_RULES[rule]
  got = shared.one_pass(config)
  keep = np.asarray(got[0][1].keep)[case[2].mask]
  assert (keep > 0).any()
  assert (keep < 1).any() == (rule not in ('none', 'mask_bad_updates'))
  shared.check(config, got)


@pytest.mark.parametrize('divergence', divergences.DIVERGENCES)
def test_every_divergence_is_that_of_the_whole_logits(shared, divergence):
  config = _OF_DIVERGENCES[divergence]
  got = shared.one_pass(config)
  assert float(got[0][1].divergence.max()) > 0
  shared.check(config, got)


@pytest.mark.parametrize('overrides', _TERMS, ids=str)
def test_every_term_has_its_gradient(shared, overrides):
  config = _config(overrides)
  shared.check(config, shared.one_pass(config))


@pytest.mark.parametrize('overrides', head_cases.SUCCESSORS, ids=str)
def test_centering_and_rates_are_those_of_the_whole_logits(shared, overrides):
  config = _config(overrides)
  shared.check(config, shared.one_pass(config))


@pytest.mark.parametrize('overrides', head_cases.SUCCESSORS[-5:], ids=str)
def test_eight_devices_center_the_same(shared, overrides):
  config = _config(overrides)
  mesh = parallel.make_mesh(1, 2, 4)
  shared.check(config, shared.one_pass(config, 3, mesh))


def test_gradients_against_float64(case, shared):
  """The policy gradient by hand, in numpy."""
  head, hidden, targets = case
  _, (d_head, d_hidden) = shared.one_pass(_OF_RULES['none'])
  x, w = hidden.astype(np.float64), head.astype(np.float64)
  law = x @ w.T / 0.8
  law -= np.log(np.exp(law).sum(-1, keepdims=True))
  onehot = np.eye(head_cases.SIZE)[targets.tokens]
  context = targets.context
  ratio = np.exp((law * onehot).sum(-1) - context.rollout_log_probs)
  slope = -ratio * context.advantages * context.weights
  d_logits = slope[..., None] * (onehot - np.exp(law)) / 0.8
  expected = (
    np.einsum('brv,brd->vd', d_logits, x),
    np.einsum('brv,vd->brd', d_logits, w),
  )
  assert factories.relative_distance((d_head, d_hidden), expected) <= 1e-6


def test_scoring_gives_the_stats_of_the_logits(case):
  head, hidden, targets = case
  layout = factories.vocabulary_config(
    head_chunk_tokens=5, temperature=head_cases.TEMPERATURE
  )

  @jax.jit
  def both(head, hidden, tokens, mask, top_ids):
    got = fused_loss.head_stats(
      layout, head, hidden, tokens, mask, top_ids=top_ids, with_entropy=True
    )
    expected = token_stats(
      hidden @ head.T,
      tokens,
      top_ids=top_ids,
      temperature=head_cases.TEMPERATURE,
      with_entropy=True,
    )
    return got, expected

  mask = targets.mask
  got, expected = jax.device_get(
    both(head, hidden, targets.tokens, mask, targets.anchor.top_ids)
  )
  for name in ('log_probs', 'entropy'):
    values = np.where(mask, getattr(expected, name), 0.0)
    np.testing.assert_allclose(getattr(got, name), values, atol=2e-6)
  values = np.where(mask[..., None], expected.top_log_probs, 0.0)
  np.testing.assert_allclose(got.top_log_probs, values, atol=2e-6)
  assert got.log_probs.max() <= 0


def test_bfloat16_states_give_float32_results(case, plain):
  head, hidden, targets = case
  low = hidden.astype(jnp.bfloat16)
  (loss, _), (d_head, d_hidden) = plain(head, low, targets)
  assert loss.dtype == d_head.dtype == jnp.float32
  assert d_hidden.dtype == jnp.bfloat16
  rounded = head.astype(jnp.bfloat16).astype(np.float32)
  (exact, _), gradients = head_cases.by_definition(
    loss_config(), rounded, low.astype(np.float32), targets
  )
  np.testing.assert_allclose(loss, exact, rtol=1e-5)
  distance = factories.relative_distance((d_head, d_hidden), gradients)
  assert 1e-4 < distance < 1e-2


def test_a_head_that_is_not_differentiated_is_left_out(case, plain):
  layout = factories.vocabulary_config(
    head_chunk_tokens=5, temperature=head_cases.TEMPERATURE
  )
  run = functools.partial(
    fused_loss.head_loss, layout, loss_lib.make_head_loss(loss_config())
  )
  half = jax.jit(jax.value_and_grad(run, argnums=1, has_aux=True))
  (loss, _), d_hidden = half(*case)
  (expected, _), (_, both) = plain(*case)
  np.testing.assert_array_equal(loss, expected)
  np.testing.assert_allclose(d_hidden, both, rtol=1e-6)
  products, of_both = (
    len(re.findall(r'dot_general', run.lower(*case).as_text()))
    for run in (half, plain)
  )
  assert products == of_both - 1


def test_no_completion_token_is_no_loss(case, plain):
  head, hidden, targets = case
  nothing = np.zeros_like(targets.mask)
  context = targets.context.replace(
    mask=nothing, weights=nothing.astype(np.float32)
  )
  empty = targets.replace(mask=nothing, context=context)
  for leaf in jax.tree.leaves(plain(head, hidden, empty)):
    assert not np.asarray(leaf).any()


def test_an_id_outside_the_vocabulary_has_no_probability(case, plain):
  head, hidden, targets = case
  strange = targets.tokens.copy()
  strange[0, :2] = head_cases.SIZE, -1
  targets = targets.replace(tokens=strange)
  (loss, decisions), gradients = plain(head, hidden, targets)
  assert decisions.log_probs[0, :2].tolist() == [LOWEST_LOG_PROB] * 2
  for leaf in jax.tree.leaves((loss, gradients)):
    assert np.isfinite(leaf).all()


def test_whole_distributions_need_what_they_were_read_from(case):
  head, hidden, targets = case
  bare = targets.replace(anchor_head=None)
  with pytest.raises(ValueError, match='need the hidden states and the head'):
    head_cases.one_pass(loss_config(divergence='exact_tv'))(head, hidden, bare)


def test_recording_top_k_needs_ids(case):
  head, hidden, targets = case
  bare = targets.replace(anchor=targets.anchor.replace(top_ids=None))
  config = loss_config(divergence='binary_tv')
  loss = loss_lib.make_head_loss(config, with_top_k=True)
  with pytest.raises(ValueError, match=r'sampling\.top_k'):
    fused_loss.head_loss(
      factories.vocabulary_config(), loss, head, hidden, bare
    )
