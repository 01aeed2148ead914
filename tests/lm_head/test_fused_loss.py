"""One pass over the vocabulary against the definition, which holds [N, V]."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.base import TokenStats
from dppo_jax.learner import loss as loss_lib
from dppo_jax.learner import movement
from dppo_jax.lm_head import fused_loss, inputs
from dppo_jax.ops import divergences
from dppo_jax.ops.log_probs import LOWEST_LOG_PROB, restrict, token_stats
from dppo_jax.ops.trust_regions import TRUST_REGIONS
from tests.support import factories, tpus

_ROWS, _LENGTH, _WIDTH, _SIZE, _K = 8, 6, 16, 40, 5


@pytest.fixture(scope='module')
def case():
  """Arrays of a batch whose policy moved a little from its rollout."""
  rng = np.random.default_rng(0)
  shape = (_ROWS, _LENGTH)

  def normal(*size, scale=1.0):
    return (scale * rng.normal(size=size)).astype(np.float32)

  head, hidden = normal(_SIZE, _WIDTH, scale=0.4), normal(*shape, _WIDTH)
  rollout_head = head + normal(_SIZE, _WIDTH, scale=0.02)
  rollout_hidden = hidden + normal(*shape, _WIDTH, scale=0.1)
  lengths = np.array([6, 1, 0, 4, 6, 3, 2, 5])
  mask = np.arange(_LENGTH) < lengths[:, None]
  logits = rollout_hidden @ rollout_head.T
  tokens = np.argmax(logits + rng.gumbel(size=logits.shape), -1)
  top_ids = np.argsort(-logits, -1)[..., :_K]
  stats = token_stats(
    logits,
    jnp.asarray(tokens),
    top_ids=jnp.asarray(top_ids),
    temperature=0.8,
    with_entropy=True,
  )
  anchor = TokenStats(
    log_probs=np.asarray(stats.log_probs),
    top_ids=top_ids.astype(np.int32),
    top_log_probs=np.asarray(stats.top_log_probs),
    hidden=rollout_hidden,
  )
  context = loss_lib.Context(
    weights=(mask * rng.uniform(0.01, 0.03, shape)).astype(np.float32),
    mask=mask,
    advantages=np.broadcast_to(normal(_ROWS, 1), shape),
    rollout_log_probs=anchor.log_probs,
    anchor_log_probs=anchor.log_probs,
    # Far away: near by, k3's gradient is a difference of equals.
    reference_log_probs=anchor.log_probs - 1 + normal(*shape, scale=0.3),
    anchor_entropy=np.asarray(stats.entropy),
  )
  targets = inputs.Targets(
    tokens=tokens.astype(np.int32),
    mask=mask,
    anchor=anchor,
    context=context,
    anchor_head=rollout_head,
  )
  return jax.tree.map(jnp.asarray, (head, hidden, targets))


def _loss_config(**overrides):
  bounds = factories.bounds(
    delta_low=0.05,
    delta_high=0.07,
    budget=0.01,
    clip_low=0.02,
    clip_high=0.02,
    tau_entropy=1e-3,
  )
  options = dict(temperature=0.8, bounds=bounds)
  return factories.loss_config(**options | overrides)


def _one_pass(config, head_chunk_tokens=5, mesh=None):
  layout = factories.vocabulary_config(
    mesh, head_chunk_tokens=head_chunk_tokens, temperature=config.temperature
  )
  run = functools.partial(
    fused_loss.head_loss, layout, loss_lib.make_head_loss(config)
  )
  return jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))


def _logits(head, hidden):
  return jnp.einsum('brd,vd->brv', hidden, head)


def _by_definition(config, head, hidden, targets):
  """The same in the dtype of the arguments, through all logits."""
  anchor_logits = None
  if movement.keeps_hidden(config):
    anchor_logits = _logits(targets.anchor_head, targets.anchor.hidden)

  def run(head, hidden):
    return loss_lib.reference_loss(
      config, _logits(head, hidden), targets, anchor_logits
    )

  differentiate = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)
  return differentiate(head, hidden)


def _double(leaf):
  leaf = np.asarray(leaf)
  return leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf


def _assert_same(config, case, got):
  with jax.enable_x64(True):
    double = jax.tree.map(jnp.asarray, jax.tree.map(_double, case))
    result = jax.tree.map(np.asarray, _by_definition(config, *double))
  (loss, decisions), gradients = result
  # The terms cancel: rounding is that of their absolute values, about .5.
  np.testing.assert_allclose(got[0][0], loss, atol=5e-7)
  assert factories.relative_distance(got[1], gradients) <= 1e-6
  # A hard weight is 0 or 1; a soft one is delta / D, and its slope in D is at
  # most 1 / delta: so much larger the rounding of D comes back.
  steepest = 1 / min(config.bounds.delta_low, config.bounds.delta_high)
  for name, slope in (('log_probs', 1), ('divergence', 1), ('keep', steepest)):
    mine, theirs = getattr(got[0][1], name), getattr(decisions, name)
    np.testing.assert_allclose(mine, theirs, atol=2e-6 * slope, err_msg=name)
  meters = got[0][1].diagnostics
  assert meters.keys() == decisions.diagnostics.keys()
  for name, theirs in decisions.diagnostics.items():
    if name.startswith('drift'):  # The tails of both are differences.
      np.testing.assert_allclose(meters[name], theirs, atol=2e-5, err_msg=name)
    elif name.startswith(('direction', 'certificate')):
      assert (meters[name] != theirs).sum() <= 1, name


@pytest.mark.parametrize('rule', TRUST_REGIONS)
def test_every_rule_is_the_rule_of_the_whole_logits(case, rule):
  """Chunks of 5 of 27 tokens: responses are cut in the middle."""
  config = _loss_config(rule=rule)
  if rule.startswith('trm_max'):  # The others ask less of the worst token.
    bounds = factories.bounds(delta_low=0.1, delta_high=0.1, budget=0.1)
    config = _loss_config(rule=rule, bounds=bounds)
  if rule == 'spo':  # Else M, and with it the rounding, is five times larger.
    bounds = dataclasses.replace(config.bounds, soft_clip=1.0)
    config = _loss_config(rule=rule, bounds=bounds)
  got = _one_pass(config)(*case)
  keep = np.asarray(got[0][1].keep)[np.asarray(case[2].mask)]
  assert (keep > 0).any()
  assert (keep < 1).any() == (rule not in ('none', 'mask_bad_updates'))
  _assert_same(config, case, got)


@pytest.mark.parametrize('divergence', divergences.DIVERGENCES)
def test_every_divergence_is_that_of_the_whole_logits(case, divergence):
  config = _loss_config(divergence=divergence)
  got = _one_pass(config)(*case)
  assert float(got[0][1].divergence.max()) > 0
  _assert_same(config, case, got)


@pytest.mark.parametrize(
  'overrides',
  [
    dict(entropy_coefficient=0.05),
    dict(entropy_coefficient=0.05, rule='cppo_dynamic'),
    dict(importance='sequence', rule='gspo'),
    dict(importance='none', rule='vespo'),
    dict(importance='least_prefix', rule='none'),
    dict(kl_coefficient=0.3, rule='cppo'),
    dict(kl_coefficient=0.3, kl_estimator='k1', loss_form='surrogate'),
    dict(ratio_cap=1.01, loss_form='surrogate'),
    dict(top_k_set='replace_kth', divergence='topk_kl'),
    dict(divergence='exact_kl', anchor_slip=0.25),
  ],
  ids=str,
)
def test_every_term_has_its_gradient(case, overrides):
  config = _loss_config(**overrides)
  _assert_same(config, case, _one_pass(config)(*case))


def _directed(direction, **thresholds):
  bounds = factories.bounds(delta_low=0.002, delta_high=0.001, **thresholds)
  return dataclasses.replace(bounds, direction=direction)


_SUCCESSORS = [
  dict(divergence='topk_kl', bounds=_directed('predictive')),
  dict(divergence='exact_tv', bounds=_directed('predictive')),
  dict(
    divergence='topk_tv',
    bounds=_directed('predictive'),
    predictive_tail='uniform',
    vocab_size=_SIZE,
  ),
  dict(centering='topk', ratio_cap=1.05),
  dict(centering='topk', importance='none', entropy_coefficient=0.05),
  dict(
    centering='topk',
    centering_mask='candidate',
    rule='ratio_clip',
    bounds=_directed('any', clip_low=0.03, clip_high=0.03),
  ),
  dict(
    centering='topk',
    centering_mask='candidate',
    divergence='binary_tv',
    bounds=_directed('away'),
  ),
  dict(
    centering='exact',
    centering_mask='candidate',
    divergence='exact_kl',
    bounds=_directed('predictive'),
    entropy_coefficient=0.05,
  ),
  dict(centering='exact', ratio_cap=1.05, rule='trm_mean'),
  dict(centering='exact', divergence='binary_kl', kl_coefficient=0.3),
  dict(centering='topk', importance='none', rule='vespo'),
]


@pytest.mark.parametrize('overrides', _SUCCESSORS, ids=str)
def test_centering_and_rates_are_those_of_the_whole_logits(case, overrides):
  config = _loss_config(**overrides)
  _assert_same(config, case, _one_pass(config)(*case))


@pytest.mark.parametrize('overrides', _SUCCESSORS[-5:], ids=str)
def test_eight_devices_center_the_same(case, overrides):
  config = _loss_config(**overrides)
  mesh = parallel.make_mesh(1, 2, 4)
  _assert_same(config, case, _one_pass(config, 3, mesh)(*case))


@pytest.fixture(scope='module')
def filtered(case):
  """The same, sampled from supports of 1 to 9 of the 40 tokens."""
  head, hidden, targets = case
  rng = np.random.default_rng(1)
  anchor, shape = targets.anchor, (_ROWS, _LENGTH)
  logits = np.asarray(_logits(targets.anchor_head, anchor.hidden))
  ids = np.argsort(-logits, -1)[..., :9]
  place = rng.integers(1, 10, (*shape, 1))
  support = np.where(np.arange(9) < place, ids, -1).astype(np.int32)
  drawn = (place * rng.random((*shape, 1))).astype(int)
  tokens = np.take_along_axis(ids, drawn, -1)[..., 0].astype(np.int32)
  stats = token_stats(
    restrict(jnp.asarray(logits), jnp.asarray(support)),
    jnp.asarray(tokens),
    top_ids=anchor.top_ids,
    temperature=0.8,
    with_entropy=True,
  )
  anchor = anchor.replace(
    log_probs=stats.log_probs,
    top_log_probs=stats.top_log_probs,
    support=support,
  )
  context = targets.context.replace(
    rollout_log_probs=stats.log_probs,
    anchor_log_probs=stats.log_probs,
    reference_log_probs=stats.log_probs - 1,
    anchor_entropy=stats.entropy,
  )
  targets = targets.replace(tokens=tokens, anchor=anchor, context=context)
  return jax.tree.map(jnp.asarray, (head, hidden, targets))


_FILTERED = [
  *(dict(divergence=name) for name in divergences.DIVERGENCES),
  dict(entropy_coefficient=0.05, rule='cppo', kl_coefficient=0.3),
  dict(importance='sequence', rule='gspo', divergence='topk_kl'),
  dict(divergence='topk_kl', bounds=_directed('predictive')),
  dict(divergence='exact_tv', bounds=_directed('predictive')),
  dict(centering='topk', ratio_cap=1.05, top_k_set='replace_kth'),
  dict(centering='exact', ratio_cap=1.05, entropy_coefficient=0.05),
]


@pytest.mark.parametrize('overrides', _FILTERED, ids=str)
def test_a_filtered_law_is_that_of_the_masked_logits(filtered, overrides):
  config = _loss_config(**overrides)
  got = _one_pass(config)(*filtered)
  assert float(got[0][1].divergence.max()) > 0
  _assert_same(config, filtered, got)


@pytest.mark.parametrize(
  ('overrides', 'shape'),
  [
    (_FILTERED[0], (1, 1, 8)),
    (_FILTERED[3], (1, 1, 8)),
    (_FILTERED[6], (1, 2, 4)),
    (_FILTERED[-1], (1, 2, 4)),
  ],
  ids=str,
)
def test_eight_devices_filter_the_same(filtered, overrides, shape):
  """Many a device holds no token of a support."""
  config = _loss_config(**overrides)
  mesh = parallel.make_mesh(*shape)
  _assert_same(config, filtered, _one_pass(config, 3, mesh)(*filtered))


def test_what_could_not_be_sampled_has_no_gradient(filtered):
  config = _loss_config(entropy_coefficient=0.05, centering='topk')
  (_, decisions), (d_head, _) = _one_pass(config, 1000)(*filtered)
  mask, support = (
    np.asarray(x) for x in (filtered[2].mask, filtered[2].anchor.support)
  )
  seen = np.unique(support[mask])
  untouched = np.setdiff1d(np.arange(_SIZE), seen)
  assert untouched.size
  assert (np.asarray(d_head)[untouched] == 0).all()
  certain = mask & ((support >= 0).sum(-1) == 1)
  assert certain.any()
  assert (np.asarray(decisions.log_probs)[certain] == 0).all()


@pytest.mark.parametrize('head_chunk_tokens', [1, 4, 26, 27, 28, 48, 1000])
def test_the_size_of_a_chunk_changes_nothing(case, head_chunk_tokens):
  config = _loss_config(rule='cppo', entropy_coefficient=0.05)
  _assert_same(config, case, _one_pass(config, head_chunk_tokens)(*case))


@pytest.mark.parametrize('rule', ['divergence', 'cppo', 'trm_mean'])
@pytest.mark.parametrize('shape', [(1, 1, 8), (2, 2, 2), (8, 1, 1), (1, 2, 4)])
def test_eight_devices_compute_the_same(case, shape, rule):
  """Forty columns: whole shards of 5, 10 and 20, padded to lanes of 128."""
  config = _loss_config(rule=rule, entropy_coefficient=0.05)
  mesh = parallel.make_mesh(*shape)
  _assert_same(config, case, _one_pass(config, 3, mesh)(*case))


def _certified(case, delta, head_chunk_tokens, mesh=None):
  """(decisions, the exact ones, share of tokens that K decide)."""
  bounds = factories.bounds(delta_low=delta, delta_high=delta)
  got, exact = (
    _one_pass(
      _loss_config(divergence=name, bounds=bounds), head_chunk_tokens, mesh
    )(*case)[0][1]
    for name in ('certified_tv', 'exact_tv')
  )
  mask = np.asarray(case[2].mask)
  return got, exact, np.mean(got.diagnostics['certificate/decided'][mask])


@pytest.mark.parametrize(
  ('delta', 'head_chunk_tokens'), [(0.9, 5), (0.12, 24), (0.07, 24), (0.07, 5)]
)
def test_a_certified_mask_is_the_exact_one(case, delta, head_chunk_tokens):
  """None, a few and most of the tokens of a chunk are measured."""
  got, exact, decided = _certified(case, delta, head_chunk_tokens)
  np.testing.assert_array_equal(got.keep, exact.keep)
  apart = np.asarray(exact.divergence - got.divergence)
  assert (apart > -1e-6).all()  # A lower bound.
  if delta == 0.9:
    assert decided == 1
    assert (apart > 1e-3).any()
  else:
    assert 0 < decided < 1
    measured = np.asarray(got.diagnostics['certificate/decided']) == 0
    np.testing.assert_allclose(apart[measured], 0.0, atol=1e-6)


def test_eight_devices_certify_the_same(case):
  mesh = parallel.make_mesh(2, 1, 4)
  got, exact, decided = _certified(case, 0.07, 3, mesh)
  np.testing.assert_array_equal(got.keep, exact.keep)
  assert 0 < decided < 1


@pytest.mark.parametrize('divergence', ['exact_tv', 'exact_kl'])
@pytest.mark.parametrize('size', [37, 3])
def test_a_vocabulary_that_does_not_divide(case, divergence, size):
  """Also one with fewer columns than devices, and K above a shard's."""
  head, hidden, targets = case
  anchor = targets.anchor
  short = targets.replace(
    tokens=targets.tokens % size,
    anchor=anchor.replace(top_ids=anchor.top_ids % size),
    anchor_head=targets.anchor_head[:size],
  )
  config = _loss_config(divergence=divergence)
  one = _one_pass(config)(head[:size], hidden, short)
  mesh = parallel.make_mesh(1, 1, 8)
  eight = _one_pass(config, mesh=mesh)(head[:size], hidden, short)
  assert eight[1][0].shape == (size, _WIDTH)
  np.testing.assert_allclose(eight[0][0], one[0][0], rtol=1e-5)
  assert factories.relative_distance(eight[1], one[1]) <= 1e-6


def test_gradients_against_float64(case):
  """The policy gradient by hand, in numpy."""
  head, hidden, targets = jax.tree.map(np.asarray, case)
  config = _loss_config(rule='none')
  (_, _), (d_head, d_hidden) = _one_pass(config)(*case)
  x, w = hidden.astype(np.float64), head.astype(np.float64)
  law = x @ w.T / 0.8
  law -= np.log(np.exp(law).sum(-1, keepdims=True))
  onehot = np.eye(_SIZE)[targets.tokens]
  context = targets.context
  ratio = np.exp((law * onehot).sum(-1) - context.rollout_log_probs)
  slope = -ratio * context.advantages * context.weights
  d_logits = slope[..., None] * (onehot - np.exp(law)) / 0.8
  expected = (
    np.einsum('brv,brd->vd', d_logits, x),
    np.einsum('brv,vd->brd', d_logits, w),
  )
  assert factories.relative_distance((d_head, d_hidden), expected) <= 1e-6


def _confident(probabilities, seed=0):
  """Head, bf16 states and tokens, whose probabilities are about those."""
  rng = np.random.default_rng(seed)
  head = rng.normal(size=(256, 32)).astype(np.float32) / 5
  head = np.asarray(jnp.asarray(head, jnp.bfloat16), np.float64)
  count = len(probabilities)
  start, tokens = (
    0.5 * rng.normal(size=(count, 32)),
    rng.integers(0, 256, count),
  )
  low, high = np.zeros((count, 1)), np.full((count, 1), 400.0)
  for _ in range(50):
    middle = (low + high) / 2
    law = _softmax((start + middle * head[tokens]) @ head.T)
    below = (law[np.arange(count), tokens] < probabilities)[:, None]
    low, high = np.where(below, middle, low), np.where(below, high, middle)
  hidden = jnp.asarray(start + low * head[tokens], jnp.bfloat16)
  return head, hidden, tokens


def _softmax(logits):
  law = np.exp(logits - logits.max(-1, keepdims=True))
  return law / law.sum(-1, keepdims=True)


def _errors(head, hidden, tokens, slopes, dtype, mesh=None):
  """Relative errors of (dW, dX) of the pass, and of plain autodiff."""
  hidden, count = hidden.astype(dtype), len(tokens)
  head32, slopes32 = jnp.asarray(head, jnp.float32), jnp.asarray(slopes)
  loss = inputs.HeadLoss(
    loss_from_stats=lambda context, stats, _: (
      jnp.sum(context * stats.log_probs),
      stats.log_probs,
    ),
    needs_full_sequence=False,
    with_entropy=False,
    with_top_k=False,
  )
  targets = inputs.Targets(
    tokens=jnp.asarray(tokens, jnp.int32)[:, None],
    mask=jnp.ones((count, 1), bool),
    anchor=TokenStats(log_probs=jnp.zeros((count, 1))),
    context=slopes32[:, None],
  )
  layout = factories.vocabulary_config(mesh, head_chunk_tokens=64)

  def ours(head, hidden):
    return fused_loss.head_loss(layout, loss, head, hidden[:, None], targets)[0]

  def plain(head, hidden):
    logits = jnp.einsum(
      'nd,vd->nv',
      hidden,
      head.astype(dtype),
      preferred_element_type=jnp.float32,
    )
    law = jax.nn.log_softmax(logits)
    at = jnp.take_along_axis(law, jnp.asarray(tokens)[:, None], 1)[:, 0]
    return jnp.sum(slopes32 * at)

  x = np.asarray(hidden, np.float64)
  d_logits = -_softmax(x @ head.T)
  d_logits[np.arange(count), tokens] += 1
  d_logits *= slopes[:, None]
  expected = d_logits.T @ x, d_logits @ head
  return [
    [
      factories.relative_distance(np.asarray(got, np.float64), want)
      for got, want in zip(
        jax.jit(jax.grad(fn, (0, 1)))(head32, hidden), expected, strict=True
      )
    ]
    for fn in (ours, plain)
  ]


_SURE = (0.3, 0.5, 0.9, 0.97, 0.99, 0.997, 0.999, 0.9999)


@pytest.mark.parametrize('probability', _SURE)
@pytest.mark.parametrize('slope', [1.0, 0.37])
def test_the_gradient_of_confident_tokens_in_bfloat16(probability, slope):
  """Not above that of plain bf16 autodiff by half, as -a p + a would be."""
  case = _confident(np.full(128, probability))
  slopes = np.full(128, slope, np.float32)
  ours, plain = _errors(*case, slopes, jnp.bfloat16)
  assert ours[0] <= 1.5 * plain[0]
  assert ours[1] <= 1.5 * plain[1]


@pytest.mark.parametrize('probability', _SURE)
def test_the_gradient_of_confident_tokens_in_float32(probability):
  """1 - p is a sum of what is small, and not a difference."""
  case = _confident(np.full(128, probability))
  ours, _ = _errors(*case, np.ones(128, np.float32), jnp.float32)
  assert max(ours) <= 2e-6


@pytest.mark.parametrize('shards', [1, 4])
def test_the_gradient_of_a_mixture_in_bfloat16(shards):
  """As a trained model samples: most tokens sure, signs by response."""
  rng = np.random.default_rng(1)
  sure = 1 - 10 ** -rng.uniform(2, 5, 256)
  probabilities = np.where(
    rng.random(256) < 0.8, sure, rng.uniform(0.05, 0.95, 256)
  )
  slopes = np.repeat(rng.choice([-1.0, 1.0], 8), 32).astype(np.float32)
  mesh = parallel.make_mesh(1, 1, shards, jax.devices()[:shards])
  case = _confident(probabilities)
  ours, plain = _errors(*case, slopes, jnp.bfloat16, mesh)
  assert ours[0] <= 1.5 * plain[0]
  assert ours[1] <= 1.5 * plain[1]


def test_scoring_gives_the_stats_of_the_logits(case):
  head, hidden, targets = case
  got = fused_loss.head_stats(
    factories.vocabulary_config(head_chunk_tokens=5, temperature=0.8),
    head,
    hidden,
    targets.tokens,
    targets.mask,
    top_ids=targets.anchor.top_ids,
    with_entropy=True,
  )
  expected = token_stats(
    hidden @ head.T,
    targets.tokens,
    top_ids=targets.anchor.top_ids,
    temperature=0.8,
    with_entropy=True,
  )
  mask = targets.mask
  for name in ('log_probs', 'entropy'):
    values = jnp.where(mask, getattr(expected, name), 0.0)
    np.testing.assert_allclose(getattr(got, name), values, atol=2e-6)
  values = jnp.where(mask[..., None], expected.top_log_probs, 0.0)
  np.testing.assert_allclose(got.top_log_probs, values, atol=2e-6)
  assert float(got.log_probs.max()) <= 0


def test_bfloat16_states_give_float32_results(case):
  head, hidden, targets = case
  config = _loss_config()
  low = hidden.astype(jnp.bfloat16)
  (loss, _), (d_head, d_hidden) = _one_pass(config)(head, low, targets)
  assert loss.dtype == d_head.dtype == jnp.float32
  assert d_hidden.dtype == jnp.bfloat16
  rounded = head.astype(jnp.bfloat16).astype(jnp.float32)
  (exact, _), gradients = _by_definition(
    config, rounded, low.astype(jnp.float32), targets
  )
  np.testing.assert_allclose(loss, exact, rtol=1e-5)
  distance = factories.relative_distance((d_head, d_hidden), gradients)
  assert 1e-4 < distance < 1e-2


def test_a_head_that_is_not_differentiated_is_left_out(case):
  config = _loss_config()
  layout = factories.vocabulary_config(head_chunk_tokens=5, temperature=0.8)
  run = functools.partial(
    fused_loss.head_loss, layout, loss_lib.make_head_loss(config)
  )
  half = jax.jit(jax.value_and_grad(run, argnums=1, has_aux=True))
  (loss, _), d_hidden = half(*case)
  (expected, _), (_, both) = _one_pass(config)(*case)
  np.testing.assert_array_equal(loss, expected)
  np.testing.assert_allclose(d_hidden, both, rtol=1e-6)
  products, of_both = (
    len(re.findall(r'dot_general', run.lower(*case).as_text()))
    for run in (half, _one_pass(config))
  )
  assert products == of_both - 1


def test_no_completion_token_is_no_loss(case):
  head, hidden, targets = case
  nothing = jnp.zeros_like(targets.mask)
  context = targets.context.replace(mask=nothing, weights=nothing * 0.0)
  empty = targets.replace(mask=nothing, context=context)
  (loss, decisions), gradients = _one_pass(_loss_config())(head, hidden, empty)
  for leaf in jax.tree.leaves((loss, decisions, gradients)):
    assert not np.asarray(leaf).any()


def test_an_id_outside_the_vocabulary_has_no_probability(case):
  head, hidden, targets = case
  strange = targets.tokens.at[0, 0].set(_SIZE).at[0, 1].set(-1)
  targets = targets.replace(tokens=strange)
  config = _loss_config()
  (loss, decisions), gradients = _one_pass(config)(head, hidden, targets)
  assert decisions.log_probs[0, :2].tolist() == [LOWEST_LOG_PROB] * 2
  for leaf in jax.tree.leaves((loss, gradients)):
    assert np.isfinite(leaf).all()


def test_whole_distributions_need_what_they_were_read_from(case):
  head, hidden, targets = case
  bare = targets.replace(anchor_head=None)
  with pytest.raises(ValueError, match='need the hidden states and the head'):
    _one_pass(_loss_config(divergence='exact_tv'))(head, hidden, bare)


def test_recording_top_k_needs_ids(case):
  head, hidden, targets = case
  bare = targets.replace(anchor=targets.anchor.replace(top_ids=None))
  config = _loss_config(divergence='binary_tv')
  loss = loss_lib.make_head_loss(config, with_top_k=True)
  with pytest.raises(ValueError, match=r'sampling\.top_k'):
    fused_loss.head_loss(
      factories.vocabulary_config(), loss, head, hidden, bare
    )


# What the compiler makes of it, at sizes where only the pass itself is large.

_LARGE, _DEEP = 8192, 64


def compiled(rows, length, head_chunk_tokens, mesh=None, divergence='topk_tv'):
  # Devices that are described only are named by shardings.
  where = parallel.replicated(mesh) if mesh is not None else None

  def shape(*size, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(size, dtype, sharding=where)

  token = shape(rows, length)
  ids = shape(rows, length, _K, dtype=jnp.int32)
  targets = inputs.Targets(
    tokens=shape(rows, length, dtype=jnp.int32),
    mask=shape(rows, length, dtype=bool),
    anchor=TokenStats(
      log_probs=token, top_ids=ids, top_log_probs=shape(*ids.shape)
    ),
    context=loss_lib.Context(
      weights=token,
      mask=shape(rows, length, dtype=bool),
      advantages=token,
      rollout_log_probs=token,
      anchor_log_probs=token,
      reference_log_probs=None,
    ),
  )
  config = _loss_config(divergence=divergence)
  run = _one_pass(config, head_chunk_tokens, mesh)
  hidden = shape(rows, length, _DEEP)
  return run.lower(shape(_LARGE, _DEEP), hidden, targets).compile()


def _sizes(text):
  """Elements of every array named in an HLO module."""
  found = re.findall(r'\b(?:f32|bf16|s32|u32|pred)\[([\d,]+)\]', text)
  return {int(np.prod([int(n) for n in dims.split(',')])) for dims in found}


def test_memory_is_that_of_a_chunk_whatever_the_tokens():
  chunk = 64
  short, long = (compiled(8, columns, chunk) for columns in (32, 128))
  sizes = [c.memory_analysis().temp_size_in_bytes for c in (short, long)]
  # Room for the buffers of a few bytes a token, which do grow.
  accumulator, tokens = _LARGE * _DEEP * 4, 8 * 128
  bound = 1.1 * chunk * _LARGE * 6 + accumulator
  assert sizes[1] <= bound
  assert sizes[1] - sizes[0] <= 4 * tokens * (_DEEP + 20)
  assert max(_sizes(long.as_text())) < tokens * _LARGE


def test_a_gather_of_the_logits_would_show():
  """The check above can fail: one chunk of all tokens is tokens x V."""
  whole = compiled(8, 32, 8 * 32)
  assert max(_sizes(whole.as_text())) >= 8 * 32 * _LARGE


def crossing(text):
  """(kind, elements) of every collective; shapes may be tuples."""
  found = []
  for line in text.splitlines():
    match = re.search(
      r'= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|'
      r'collective-permute)(?:-start)?\(',
      line,
    )
    if match:
      found += [(match[2], size) for size in _sizes(match[1])]
  return found


def test_what_crosses_the_vocabulary_axis():
  """Per token 4 (K + 3) bytes in two reductions, and dX in f32 in a third."""
  chunk = 64
  program = compiled(8, 32, chunk, parallel.make_mesh(1, 1, 8))
  found = crossing(program.as_text())
  assert {kind for kind, _ in found} == {'all-reduce'}
  sizes = sorted(size for _, size in found)
  assert sizes == [chunk, chunk * (_K + 2), chunk * _DEEP]


@tpus.needs_libtpu
def test_what_crosses_the_vocabulary_axis_of_a_tpu():
  """The same of the compiler for TPUs, for eight chips that are not here."""
  code = (
    'from dppo_jax import parallel\n'
    'from dppo_jax.planning.aot import topologies\n'
    'from tests.lm_head import test_fused_loss as case\n'
    "devices = topologies.describe(topologies.parse('v5e:2x4'))\n"
    'mesh = parallel.make_mesh(1, 1, 8, devices)\n'
    'print(case.crossing(case.compiled(8, 32, 64, mesh).as_text()))\n'
  )
  expected = [64, 64 * (_K + 2), 64 * _DEEP]
  assert tpus.run(code)[-1] == str([('all-reduce', n) for n in expected])
