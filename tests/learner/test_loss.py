import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import TokenStats
from dppo_jax.learner import loss as loss_lib
from tests.support import factories

_WIDTH, _LENGTH, _VOCAB = 3, 4, factories.VOCAB_SIZE
_ROWS = 8


@pytest.fixture(scope='module')
def batch():
  batch = factories.make_batch(4, 2, _WIDTH, _LENGTH)
  rng = np.random.default_rng(1)
  log_probs = rng.uniform(-4.0, -1.0, batch.tokens.shape)
  stats = TokenStats(log_probs=log_probs.astype(np.float32))
  return dataclasses.replace(batch, recomputed=stats, reference=stats)


@pytest.fixture(scope='module')
def logits():
  rng = np.random.default_rng(2)
  return rng.normal(size=(_ROWS, _LENGTH, _VOCAB)).astype(np.float32)


def _law(logits, temperature=1.0):
  law = logits.astype(np.float64) / temperature
  return law - np.log(np.exp(law).sum(-1, keepdims=True))


def _columns(leaf):
  return np.asarray(leaf)[:, _WIDTH:]


def _weighted(logits, batch, weights, **overrides):
  """Loss of a policy whose parameters are its logits."""
  options = dict(prompt_length=_WIDTH, rule='none', divergence='binary_tv')
  config = factories.loss_config(**options | overrides)
  return loss_lib.policy_loss(
    factories.table_policy(_WIDTH),
    factories.vocabulary_config(temperature=config.temperature),
    config,
    jnp.asarray(logits),
    jax.tree.map(jnp.asarray, batch),
    weights,
  )


def _loss(logits, batch, **overrides):
  """Loss of each token, found by weighing one at a time; and decisions."""
  each = jnp.eye(_ROWS * _LENGTH).reshape(-1, _ROWS, _LENGTH)

  def alone(weights):
    return _weighted(logits, batch, weights, **overrides)[0]

  losses = jax.vmap(alone)(each).reshape(_ROWS, _LENGTH)
  return losses, _weighted(logits, batch, each[0], **overrides)[1]


def _gradient(logits, batch, **overrides):
  def total(logits):
    weights = jnp.ones((_ROWS, _LENGTH))
    return _weighted(logits, batch, weights, **overrides)[0]

  return np.asarray(jax.grad(total)(jnp.asarray(logits)))


def _sampled(law, batch):
  ids = _columns(batch.tokens)[..., None]
  return np.take_along_axis(law, ids, -1)[..., 0]


def _score(law, batch):
  """d log pi(token) / d logits at temperature 1."""
  onehot = np.eye(_VOCAB)[_columns(batch.tokens)]
  return onehot - np.exp(law)


@pytest.mark.parametrize('form', ['score', 'surrogate'])
@pytest.mark.parametrize(
  ('floor', 'cap'), [(0.0, float('inf')), (0.0, 0.5), (0.3, 2.0)]
)
def test_policy_gradient_by_hand(batch, logits, form, floor, cap):
  """-clip(pi / mu) A (onehot - pi): eq. 23 with nothing masked."""
  law, mask = _law(logits), _columns(batch.completion_mask)
  ratio = np.exp(_sampled(law, batch) - _columns(batch.rollout.log_probs))
  assert ratio[mask].min() < 0.3
  assert ratio[mask].max() > 2.0
  weight = np.clip(ratio, floor, cap) * _columns(batch.advantages) * mask
  expected = -weight[..., None] * _score(law, batch)
  got = _gradient(
    logits, batch, loss_form=form, ratio_floor=floor, ratio_cap=cap
  )
  np.testing.assert_allclose(got, expected, atol=2e-6)


def test_sequence_importance_by_hand(batch, logits):
  """The geometric mean of pi / mu over the response weighs each token."""
  law, mask = _law(logits), _columns(batch.completion_mask)
  log_ratio = _sampled(law, batch) - _columns(batch.rollout.log_probs)
  mean = (log_ratio * mask).sum(1, keepdims=True) / mask.sum(1, keepdims=True)
  weight = np.exp(mean) * _columns(batch.advantages) * mask
  expected = -weight[..., None] * _score(law, batch)
  got = _gradient(logits, batch, importance='sequence')
  np.testing.assert_allclose(got, expected, atol=2e-6)


def test_least_prefix_importance_by_hand(batch, logits):
  """pi / mu of a token, times the least one among those before it."""
  law, mask = _law(logits), _columns(batch.completion_mask)
  ratio = np.exp(_sampled(law, batch) - _columns(batch.rollout.log_probs))
  weight = np.zeros_like(ratio)
  for row, kept in enumerate(mask):
    least = 1.0
    for t in np.flatnonzero(kept):
      weight[row, t] = ratio[row, t] * least
      seen = ratio[row, t]
      first = t == np.flatnonzero(kept)[0]
      least = seen if first else min(least, seen)
  assert (weight[mask] > ratio[mask]).any()  # No cap at 1: a prefix may gain.
  weight = weight * _columns(batch.advantages) * mask
  expected = -weight[..., None] * _score(law, batch)
  got = _gradient(logits, batch, importance='least_prefix')
  np.testing.assert_allclose(got, expected, rtol=1e-6, atol=2e-6)


def test_temperature_divides_the_logits(batch, logits):
  law, mask = _law(logits, 0.5), _columns(batch.completion_mask)
  ratio = np.exp(_sampled(law, batch) - _columns(batch.rollout.log_probs))
  weight = ratio * _columns(batch.advantages) * mask
  expected = -weight[..., None] * _score(law, batch) / 0.5
  got = _gradient(logits, batch, temperature=0.5)
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('estimator', ['k1', 'k3'])
def test_kl_penalty_by_hand(batch, logits, estimator):
  """k1: log(pi / ref) grad log pi. k3: (1 - ref / pi) grad log pi."""
  law, mask = _law(logits), _columns(batch.completion_mask)
  log_ratio = _sampled(law, batch) - _columns(batch.reference.log_probs)
  weight = {'k1': log_ratio, 'k3': 1.0 - np.exp(-log_ratio)}[estimator]
  expected = 0.3 * (weight * mask)[..., None] * _score(law, batch)
  options = dict(kl_coefficient=0.3, kl_estimator=estimator)
  got = _gradient(logits, batch, **options) - _gradient(logits, batch)
  np.testing.assert_allclose(got, expected, atol=1e-5)

  value = {'k1': log_ratio, 'k3': np.expm1(-log_ratio) + log_ratio}[estimator]
  more = _loss(logits, batch, **options)[0] - _loss(logits, batch)[0]
  np.testing.assert_allclose(more, 0.3 * value * mask, atol=1e-5)


def test_entropy_bonus_by_hand(batch, logits):
  """H = -sum p log p; -dH/dz = p (log p + H), to be minimized."""
  law, mask = _law(logits), _columns(batch.completion_mask)
  probs = np.exp(law)
  entropy = -(probs * law).sum(-1)
  expected = 0.2 * probs * (law + entropy[..., None]) * mask[..., None]
  options = dict(entropy_coefficient=0.2)
  got = _gradient(logits, batch, **options) - _gradient(logits, batch)
  np.testing.assert_allclose(got, expected, atol=1e-5)
  more = _loss(logits, batch, **options)[0] - _loss(logits, batch)[0]
  np.testing.assert_allclose(more, -0.2 * entropy * mask, atol=1e-5)


@pytest.mark.parametrize('anchor', ['rollout', 'recomputed'])
def test_the_anchor_decides_and_the_rollout_weighs(batch, logits, anchor):
  law, mask = _law(logits), _columns(batch.completion_mask)
  log_probs = _sampled(law, batch)
  stats = {'rollout': batch.rollout, 'recomputed': batch.recomputed}[anchor]
  moved = np.exp(log_probs) - np.exp(_columns(stats.log_probs))
  advantages = _columns(batch.advantages)
  bounds = factories.bounds(delta_low=0.02, delta_high=0.05)
  delta = np.where(advantages > 0, 0.05, 0.02)
  keep = ~((np.abs(moved) > delta) & (advantages * moved > 0)) & mask
  assert 0 < keep.sum() < mask.sum()
  ratio = np.exp(log_probs - _columns(batch.rollout.log_probs))
  expected = np.where(keep, -ratio * advantages * log_probs, 0.0)

  got, decisions = _loss(
    logits, batch, rule='divergence', anchor=anchor, bounds=bounds
  )
  np.testing.assert_array_equal(decisions.keep, keep)
  np.testing.assert_allclose(got, expected, atol=1e-5)
  np.testing.assert_allclose(
    decisions.divergence, np.abs(moved) * mask, atol=1e-6
  )
  np.testing.assert_allclose(decisions.log_probs, log_probs * mask, atol=1e-5)


def test_anchors_disagree(batch, logits):
  keeps = [
    _loss(logits, batch, rule='ratio_clip', anchor=anchor)[1].keep
    for anchor in ('rollout', 'recomputed')
  ]
  assert (np.asarray(keeps[0]) != np.asarray(keeps[1])).any()


def test_decisions_carry_no_gradient(batch, logits):
  def total(logits):
    return sum(
      jnp.sum(leaf) for leaf in jax.tree.leaves(_loss(logits, batch)[1])
    )

  assert not np.asarray(jax.grad(total)(jnp.asarray(logits))).any()


def test_what_stands_on_padding_does_not_matter(batch, logits):
  mask = batch.completion_mask
  assert not _columns(mask).all()
  broken = dataclasses.replace(
    batch,
    tokens=np.where(batch.token_mask, batch.tokens, 7),
    advantages=np.where(mask, batch.advantages, 3.0).astype(np.float32),
    rollout=dataclasses.replace(
      batch.rollout,
      log_probs=np.where(mask, batch.rollout.log_probs, -9).astype(np.float32),
    ),
  )
  options = dict(entropy_coefficient=0.2, kl_coefficient=0.3)
  got, expected = (_loss(logits, b, **options) for b in (broken, batch))
  jax.tree.map(np.testing.assert_array_equal, got, expected)
  hidden = ~_columns(mask)
  for leaf in jax.tree.leaves(got):
    assert not np.asarray(leaf)[hidden].any()
  gradient = _gradient(logits, broken, **options)
  assert not gradient[hidden].any()


def test_recomputed_anchor_needs_its_stats(batch, logits):
  bare = dataclasses.replace(batch, recomputed=None)
  with pytest.raises(ValueError, match=r'trust_region\.anchor: "recomputed"'):
    _loss(logits, bare, anchor='recomputed')


def test_the_support_is_of_the_sampler_whoever_is_compared_with(batch):
  support = jnp.zeros((*batch.tokens.shape, 2), jnp.int32)
  support = support.at[..., 1].set(jnp.arange(batch.tokens.shape[1]))
  rollout = dataclasses.replace(batch.rollout, support=support)
  targets = loss_lib.make_targets(
    factories.loss_config(anchor='recomputed', prompt_length=_WIDTH),
    dataclasses.replace(batch, rollout=rollout),
    jnp.ones((_ROWS, _LENGTH)),
  )
  found: TokenStats = targets.anchor
  np.testing.assert_array_equal(found.support, _columns(support))
  np.testing.assert_array_equal(
    found.log_probs, _columns(batch.recomputed.log_probs)
  )


def test_kl_penalty_needs_a_reference(batch, logits):
  bare = dataclasses.replace(batch, reference=None)
  with pytest.raises(ValueError, match=r'objective\.kl_coefficient: .*'):
    _loss(logits, bare, kl_coefficient=0.1)


def test_imitation_is_minus_log_pi(batch, logits):
  demonstrations = factories.make_demonstrations(batch)
  weights = np.random.default_rng(3).uniform(size=(_ROWS, _LENGTH))
  got, record = loss_lib.imitation_loss(
    factories.table_policy(_WIDTH),
    factories.vocabulary_config(),
    _WIDTH,
    jnp.asarray(logits),
    demonstrations,
    jnp.asarray(weights, jnp.float32),
  )
  mask = _columns(batch.completion_mask)
  expected = np.where(mask, -_sampled(_law(logits), batch), 0.0)
  np.testing.assert_allclose(record, expected, atol=1e-5)
  assert float(got) == pytest.approx((expected * weights).sum(), rel=1e-5)


@pytest.mark.parametrize('top_k_set', ['union', 'replace_kth'])
@pytest.mark.parametrize('kind', ['tv', 'kl'])
def test_the_atoms_are_those_of_the_paper_or_of_its_code(
  batch, logits, kind, top_k_set
):
  """Of the recorded ids, the sampled token, and the rest as one atom."""
  law, mask = _law(logits), _columns(batch.completion_mask)
  tokens = _columns(batch.tokens)
  recorded = _columns(batch.rollout.top_log_probs)
  expected = np.zeros(mask.shape)
  for at in zip(*np.nonzero(mask), strict=True):
    listed = list(_columns(batch.rollout.top_ids)[at])
    mu = dict(zip(listed, np.exp(recorded[at].astype(np.float64)), strict=True))
    if tokens[at] not in mu:
      if top_k_set == 'replace_kth':
        del mu[listed[-1]]
      mu[tokens[at]] = np.exp(_columns(batch.rollout.log_probs)[at])
    p = np.array([*mu.values()])
    q = np.exp(law[at][[*mu]])
    p, q = np.append(p, 1 - p.sum()), np.append(q, 1 - q.sum())
    kl = (p * np.log(p / q)).sum()
    expected[at] = kl if kind == 'kl' else 0.5 * np.abs(p - q).sum()
  _, decisions = _loss(
    logits, batch, divergence=f'topk_{kind}', top_k_set=top_k_set
  )
  np.testing.assert_allclose(decisions.divergence, expected, atol=1e-5)


def test_the_two_sets_of_atoms_differ(batch, logits):
  first, second = (
    _loss(logits, batch, divergence='topk_tv', top_k_set=name)[1].divergence
    for name in ('union', 'replace_kth')
  )
  assert np.abs(first - second).max() > 1e-3


def test_a_rule_reports_of_itself(batch, logits):
  """What the prefix budget masked is in the decisions, 0 on padding."""
  mask = _columns(batch.completion_mask)
  bounds = factories.bounds(delta_low=0.1, delta_high=0.1, budget=0.0, w_min=1)
  _, decisions = _loss(logits, batch, rule='cppo', bounds=bounds)
  advantages = _columns(batch.advantages)
  moved = np.exp(np.asarray(decisions.log_probs)) - np.exp(
    _columns(batch.rollout.log_probs)
  )
  divergence = np.asarray(decisions.divergence)
  before = np.cumsum(divergence, axis=1) - divergence
  spent = (divergence > 0.1 - before) & (divergence <= 0.1)
  spent &= (advantages * moved > 0) & mask
  assert 0 < spent.sum() < mask.sum()
  got = decisions.diagnostics['cppo/masked_by_budget']
  np.testing.assert_array_equal(got, spent)
  others = _loss(logits, batch, rule='divergence')[1].diagnostics
  assert not [name for name in others if name.startswith('cppo')]


def test_a_dense_model_reports_no_routers(batch, logits):
  assert _weighted(logits, batch, jnp.ones((_ROWS, _LENGTH)))[1].router == {}


@pytest.mark.parametrize('anchor', ['rollout', 'recomputed'])
def test_the_sampler_says_what_could_be_sampled(batch, anchor):
  """Also where another policy is the anchor."""
  support = np.stack([batch.tokens, np.full_like(batch.tokens, -1)], axis=-1)
  mu = dataclasses.replace(batch.rollout, support=support)
  filtered = dataclasses.replace(batch, rollout=mu)
  config = factories.loss_config(prompt_length=_WIDTH, anchor=anchor)
  weights = jnp.ones((_ROWS, _LENGTH))
  targets = loss_lib.make_targets(config, filtered, weights)
  np.testing.assert_array_equal(targets.anchor.support, _columns(support))
