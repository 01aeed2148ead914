"""Cases of the pass over the vocabulary, and programs that they share.

Of losses that differ in what they do with a token's stats alone, one program
holds all and takes the number of one: it is traced and compiled once. What is
not shared is what the pass itself reads of a loss: its static fields.
"""

import collections
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.base import TokenStats
from dppo_jax.learner import loss as loss_lib
from dppo_jax.learner import movement
from dppo_jax.lm_head import fused_loss, inputs
from dppo_jax.ops.log_probs import restrict, token_stats
from tests.support import factories

ROWS, LENGTH, WIDTH, SIZE, K = 8, 6, 16, 40, 5
TEMPERATURE = 0.8
# Functions of a loss that the pass calls with stats of tokens.
_CALLED = (
  *('loss_from_stats', 'divergence_fn', 'integrand', 'meter_fn'),
  'candidate_weights',
)
# Metrics of single rules, see `TrustRegion.diagnose`.
_OF_RULES = ('cppo/budget_effective', 'cppo/masked_by_budget')


def loss_config(**overrides):
  bounds = factories.bounds(
    delta_low=0.05,
    delta_high=0.07,
    budget=0.01,
    clip_low=0.02,
    clip_high=0.02,
    tau_entropy=1e-3,
  )
  options = dict(temperature=TEMPERATURE, bounds=bounds)
  return factories.loss_config(**options | overrides)


def directed(direction, **thresholds):
  bounds = factories.bounds(delta_low=0.002, delta_high=0.001, **thresholds)
  return dataclasses.replace(bounds, direction=direction)


# Overrides of losses with a centre, or that read the rate of a divergence.
SUCCESSORS = [
  dict(divergence='topk_kl', bounds=directed('predictive')),
  dict(divergence='exact_tv', bounds=directed('predictive')),
  dict(
    divergence='topk_tv',
    bounds=directed('predictive'),
    predictive_tail='uniform',
    vocab_size=SIZE,
  ),
  dict(centering='topk', ratio_cap=1.05),
  dict(centering='topk', importance='none', entropy_coefficient=0.05),
  dict(
    centering='topk',
    centering_mask='candidate',
    rule='ratio_clip',
    bounds=directed('any', clip_low=0.03, clip_high=0.03),
  ),
  dict(
    centering='topk',
    centering_mask='candidate',
    divergence='binary_tv',
    bounds=directed('away'),
  ),
  dict(
    centering='exact',
    centering_mask='candidate',
    divergence='exact_kl',
    bounds=directed('predictive'),
    entropy_coefficient=0.05,
  ),
  dict(centering='exact', ratio_cap=1.05, rule='trm_mean'),
  dict(centering='exact', divergence='binary_kl', kl_coefficient=0.3),
  dict(centering='topk', importance='none', rule='vespo'),
]


@jax.jit
def _logits(head, hidden):
  return jnp.einsum('brd,vd->brv', hidden, head)


@jax.jit
def _stats(logits, tokens, top_ids, support):
  return token_stats(
    restrict(logits, support),
    tokens,
    top_ids=top_ids,
    temperature=TEMPERATURE,
    with_entropy=True,
  )


def moved():
  """(head, hidden, targets) of a policy that moved a little since."""
  rng = np.random.default_rng(0)
  shape = (ROWS, LENGTH)

  def normal(*size, scale=1.0):
    return (scale * rng.normal(size=size)).astype(np.float32)

  head, hidden = normal(SIZE, WIDTH, scale=0.4), normal(*shape, WIDTH)
  rollout_head = head + normal(SIZE, WIDTH, scale=0.02)
  rollout_hidden = hidden + normal(*shape, WIDTH, scale=0.1)
  lengths = np.array([6, 1, 0, 4, 6, 3, 2, 5])
  mask = np.arange(LENGTH) < lengths[:, None]
  logits = rollout_hidden @ rollout_head.T
  tokens = np.argmax(logits + rng.gumbel(size=logits.shape), -1)
  tokens = tokens.astype(np.int32)
  top_ids = np.argsort(-logits, -1)[..., :K].astype(np.int32)
  stats = jax.tree.map(np.asarray, _stats(logits, tokens, top_ids, None))
  anchor = TokenStats(
    log_probs=stats.log_probs,
    top_ids=top_ids,
    top_log_probs=stats.top_log_probs,
    hidden=rollout_hidden,
  )
  context = loss_lib.Context(
    weights=(mask * rng.uniform(0.01, 0.03, shape)).astype(np.float32),
    mask=mask,
    advantages=np.broadcast_to(normal(ROWS, 1), shape),
    rollout_log_probs=anchor.log_probs,
    anchor_log_probs=anchor.log_probs,
    # Far away: near by, k3's gradient is a difference of equals.
    reference_log_probs=anchor.log_probs - 1 + normal(*shape, scale=0.3),
    anchor_entropy=stats.entropy,
  )
  targets = inputs.Targets(
    tokens=tokens,
    mask=mask,
    anchor=anchor,
    context=context,
    anchor_head=rollout_head,
  )
  return head, hidden, targets


def filtered():
  """The same, sampled from supports of 1 to 9 of the 40 tokens."""
  head, hidden, targets = moved()
  rng = np.random.default_rng(1)
  anchor, shape = targets.anchor, (ROWS, LENGTH)
  logits = np.asarray(_logits(targets.anchor_head, anchor.hidden))
  ids = np.argsort(-logits, -1)[..., :9]
  place = rng.integers(1, 10, (*shape, 1))
  support = np.where(np.arange(9) < place, ids, -1).astype(np.int32)
  drawn = (place * rng.random((*shape, 1))).astype(int)
  tokens = np.take_along_axis(ids, drawn, -1)[..., 0].astype(np.int32)
  stats = _stats(logits, tokens, anchor.top_ids, support)
  stats = jax.tree.map(np.asarray, stats)
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
  return head, hidden, targets


def one_pass(config, head_chunk_tokens=5, mesh=None):
  """Program of a loss alone: (head, hidden, targets) to value and gradients."""
  return _program(loss_lib.make_head_loss(config), head_chunk_tokens, mesh)


def _program(loss, head_chunk_tokens, mesh):
  layout = factories.vocabulary_config(
    mesh, head_chunk_tokens=head_chunk_tokens, temperature=TEMPERATURE
  )
  run = functools.partial(fused_loss.head_loss, layout, loss)
  return jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))


def _kind(config):
  """What losses of one program must agree in."""
  loss = loss_lib.make_head_loss(config)
  alone = loss.rate_fn or loss.certify_fn
  called = {name: getattr(loss, name) is not None for name in _CALLED}
  # Names of meters are joined.
  return loss._replace(**called, meters=()), config if alone else None


def _filled(values, names, like):
  """Not a number is what a loss does not measure, and others do."""
  nothing = jnp.full(like.shape, jnp.nan, jnp.float32)
  return {name: values.get(name, nothing) for name in names}


def _one_of(losses, index):
  """The loss of that number, where `index` is an argument of a program."""
  if len(losses) == 1:
    return losses[0]
  meters = tuple(dict.fromkeys(name for loss in losses for name in loss.meters))

  def choose(name, finish=lambda found, args: found):
    fns = [getattr(loss, name) for loss in losses]
    if fns[0] is None:
      return None

    def call(*args):
      branches = [lambda *args, fn=fn: finish(fn(*args), args) for fn in fns]
      return jax.lax.switch(index, branches, *args)

    return call

  def same_meters(found, args):
    return _filled(found, meters, args[1])

  def same_diagnostics(found, args):
    loss, decisions = found
    names = (*args[2].meters, *_OF_RULES)
    filled = _filled(decisions.diagnostics, names, decisions.keep)
    return loss, decisions.replace(diagnostics=filled)

  def candidate_weights(*args):
    weigh = [loss.candidate_weights(*args) for loss in losses]
    return lambda *laws: jax.lax.switch(index, weigh, *laws)

  return losses[0]._replace(
    loss_from_stats=choose('loss_from_stats', same_diagnostics),
    divergence_fn=choose('divergence_fn'),
    integrand=choose('integrand'),
    meter_fn=choose('meter_fn', same_meters),
    candidate_weights=candidate_weights,
    meters=meters,
  )


class SharedPrograms:
  """Results of the pass, and of the definition, for losses known before."""

  def __init__(self, configs, case):
    self._case = case
    kinds = collections.defaultdict(list)
    for config in configs:
      same = kinds[_kind(config)]
      if config not in same:
        same.append(config)
    self._groups = list(kinds.values())
    self._programs = {}

  def _group(self, config):
    return next(group for group in self._groups if config in group)

  def one_pass(self, config, head_chunk_tokens=5, mesh=None):
    """((loss, decisions), gradients) of the pass over the vocabulary."""
    group = self._group(config)
    key = (id(group), head_chunk_tokens, mesh)
    if key not in self._programs:
      losses = [loss_lib.make_head_loss(each) for each in group]

      @jax.jit
      def run(index, *case):
        loss = _one_of(losses, index)
        return _program(loss, head_chunk_tokens, mesh)(*case)

      self._programs[key] = run
    run = self._programs[key]
    (loss, decisions), gradients = run(group.index(config), *self._case)
    measured = {
      name: values
      for name, values in decisions.diagnostics.items()
      if not np.isnan(values)[self._case[2].mask].all()
    }
    return (loss, decisions.replace(diagnostics=measured)), gradients

  def definition(self, config):
    """The same by the definition in float64, through all logits."""
    group = self._group(config)
    key = id(group)
    if key not in self._programs:
      with jax.enable_x64(True):
        double = jax.tree.map(_double, self._case)
        self._programs[key] = jax.device_get(_definitions(group)(*double))
    return self._programs[key][group.index(config)]

  def check(self, config, got):
    """Asserts that what a pass gave is what the definition says."""
    assert_same(config, got, self.definition(config))


def _definitions(configs):
  """Program of the definitions of losses, in the dtype of the arguments."""

  def run(config, targets, anchor_logits, head, hidden):
    return loss_lib.reference_loss(
      config, _logits(head, hidden), targets, anchor_logits
    )

  @jax.jit
  def of_all(head, hidden, targets):
    whole = _logits(targets.anchor_head, targets.anchor.hidden)
    return [
      jax.value_and_grad(
        functools.partial(
          run, config, targets, whole if movement.keeps_hidden(config) else None
        ),
        argnums=(0, 1),
        has_aux=True,
      )(head, hidden)
      for config in configs
    ]

  return of_all


def by_definition(config, *case):
  """((loss, decisions), gradients) in the dtype of the arguments."""
  return _definitions([config])(*case)[0]


def _double(leaf):
  leaf = np.asarray(leaf)
  return leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf


def assert_same(config, got, expected):
  """Asserts that losses, gradients, decisions and meters agree."""
  (loss, decisions), gradients = expected
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
      differ = np.asarray(meters[name]) != theirs
      assert differ.sum() <= 1, name
