"""The policy loss of a batch, and what was decided about each token."""

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from dppo_jax.base import (
  Array,
  Batch,
  Decisions,
  Demonstrations,
  Params,
  TokenStats,
)
from dppo_jax.learner import scoring
from dppo_jax.lm_head.chunked_pass import HeadLoss, Targets, VocabularyConfig
from dppo_jax.lm_head.fused_loss import head_loss
from dppo_jax.models import moe
from dppo_jax.models.policy import Policy
from dppo_jax.ops import divergences, objectives, trust_regions


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
  """Independent axes of the policy loss.

  Attributes:
    prompt_length: P, columns before the completion.
    shared_rows: consecutive rows whose prompt is run once.
    temperature: divides the logits, as in the sampler.
    rule: a key of `TRUST_REGIONS`.
    divergence: a key of `DIVERGENCES`.
    top_k_set: 'union', the paper's K or K + 1 atoms, or 'replace_kth', the
      authors' code: exactly K.
    anchor: 'rollout' or 'recomputed': whose policy the rule compares.
    bounds: thresholds of the rule.
    loss_form: a key of `FORMS`.
    importance: 'token', pi / mu of each token; 'sequence', its geometric mean
      over the response; or 'least_prefix', that of the token times the least
      one before it.
    ratio_cap: C, truncation of pi / mu above.
    ratio_floor: truncation below, 0 for none.
    kl_coefficient: weight of the KL to the reference; 0 switches it off.
    kl_estimator: a key of `KL_ESTIMATORS`.
    entropy_coefficient: weight of the entropy bonus; 0 switches it off.
    load_balance_coefficient: weight of `moe.load_balance` of the rows at hand;
      0 switches it off.
  """

  prompt_length: int
  shared_rows: int
  temperature: float
  rule: str
  divergence: str
  top_k_set: str
  anchor: str
  bounds: trust_regions.Thresholds
  loss_form: str
  importance: str
  ratio_cap: float
  ratio_floor: float
  kl_coefficient: float
  kl_estimator: str
  entropy_coefficient: float
  load_balance_coefficient: float


@flax.struct.dataclass(kw_only=True)
class Context:
  """What the decisions read beside the policy's own stats; all [B, R].

  Attributes:
    weights: f32, of each token in the loss, 0.0 where masked.
    mask: bool, completion tokens.
    advantages: f32.
    rollout_log_probs: f32, log mu.
    anchor_log_probs: f32, of the policy that the rule compares with.
    reference_log_probs: f32, or None without a KL penalty.
  """

  weights: Array
  mask: Array
  advantages: Array
  rollout_log_probs: Array
  anchor_log_probs: Array
  reference_log_probs: Array | None


def policy_loss(
  policy: Policy,
  layout: VocabularyConfig,
  config: LossConfig,
  params: Params,
  batch: Batch,
  weights: Array,
  anchor_head: Array | None = None,
  *,
  with_top_k: bool = False,
) -> tuple[Array, Decisions]:
  """Surrogate, KL penalty and entropy bonus, by weight; and load balance.

  Routes that the batch holds are replayed.

  Args:
    policy: the model.
    layout: of the pass over the vocabulary.
    config: which loss.
    params: parameters to differentiate with respect to.
    batch: B rows.
    weights: f32 [B, R], of each completion token; 0.0 where masked.
    anchor_head: [V, D], the head that `anchor.hidden` was read by; only for a
      divergence of whole distributions.
    with_top_k: whether the decisions hold pi's log-probs of the recorded ids.

  Returns:
    f32 []; and the decisions.

  Raises:
    ValueError: the batch lacks stats that the config needs.
  """
  first = config.prompt_length
  anchor = batch.rollout
  if config.anchor == 'recomputed':
    if batch.recomputed is None:
      raise ValueError(
        'trust_region.anchor: "recomputed" needs Batch.recomputed, the'
        ' trainer\'s own stats; use anchor "rollout" or recompute them'
      )
    anchor = batch.recomputed
  reference = None
  if config.kl_coefficient:
    if batch.reference is None:
      raise ValueError(
        'objective.kl_coefficient: a KL penalty needs Batch.reference'
      )
    reference = batch.reference.log_probs[:, first:]
  anchor = scoring.completion_columns(anchor, first)
  row = divergences.DIVERGENCES[config.divergence]
  mask = batch.completion_mask[:, first:]
  targets = Targets(
    tokens=batch.tokens[:, first:],
    mask=mask,
    anchor=anchor,
    anchor_head=anchor_head,
    context=Context(
      weights=weights,
      mask=mask,
      advantages=batch.advantages[:, first:],
      rollout_log_probs=batch.rollout.log_probs[:, first:],
      anchor_log_probs=anchor.log_probs,
      reference_log_probs=reference,
    ),
  )
  loss = HeadLoss(
    divergence_fn=functools.partial(measure_divergence, config),
    integrand=row.integrand,
    loss_from_stats=functools.partial(loss_from_stats, config),
    needs_full_sequence=needs_full_sequence(config),
    with_entropy=config.entropy_coefficient != 0,
    with_top_k=with_top_k,
  )
  hidden, routing = scoring.completion_hidden(
    policy,
    params,
    batch.tokens,
    batch.token_mask,
    batch.routes,
    prompt_length=first,
    shared_rows=config.shared_rows,
  )
  found: Any = head_loss(layout, loss, policy.head(params), hidden, targets)
  if routing is None:
    return found
  total, decisions = found
  if config.load_balance_coefficient:
    total += config.load_balance_coefficient * moe.load_balance(routing)
  measured = jax.lax.stop_gradient(moe.router_metrics(routing))
  router = {
    name: jnp.broadcast_to(value, mask.shape[:1])
    for name, value in measured.items()
  }
  return total, dataclasses.replace(decisions, router=router)


def needs_full_sequence(config: LossConfig) -> bool:
  """Whether a token's coefficient depends on tokens after it."""
  scope = trust_regions.TRUST_REGIONS[config.rule].scope
  return scope == 'sequence' or config.importance == 'sequence'


def loss_from_stats(
  config: LossConfig, context: Context, current: TokenStats, divergence: Array
) -> tuple[Array, Decisions]:
  """The loss, given what pi says of each token.

  Args:
    config: which loss.
    context: what is fixed during the update.
    current: pi's stats [B, R], differentiable.
    divergence: f32 [B, R], as measured.

  Returns:
    f32 [], and the decisions without a gradient.
  """
  mask, advantages = context.mask, context.advantages
  frozen = jax.lax.stop_gradient(current)
  signals = trust_regions.Signals(
    advantages=advantages,
    log_probs=frozen.log_probs,
    anchor_log_probs=context.anchor_log_probs,
    divergence=jax.lax.stop_gradient(divergence),
    mask=mask,
  )
  keep = trust_regions.keep_weights(config.rule, signals, config.bounds)
  mu = context.rollout_log_probs
  if config.importance == 'sequence':
    ratios = trust_regions.sequence_ratio(frozen.log_probs, mu, mask)
  elif config.importance == 'least_prefix':
    ratios = objectives.least_prefix_ratio(frozen.log_probs, mu, mask)
  else:
    ratios = trust_regions.ratio(frozen.log_probs, mu)
  weight = objectives.importance_weight(
    ratios, config.ratio_floor, config.ratio_cap
  )
  losses = objectives.FORMS[config.loss_form](
    current.log_probs, weight, advantages, keep
  )
  if context.reference_log_probs is not None:
    estimate = objectives.KL_ESTIMATORS[config.kl_estimator]
    penalty = estimate(current.log_probs, context.reference_log_probs)
    losses = losses + config.kl_coefficient * penalty
  if current.entropy is not None:
    losses = losses - config.entropy_coefficient * current.entropy
  decisions = Decisions(
    log_probs=jnp.where(mask, frozen.log_probs, 0.0),
    divergence=jnp.where(mask, signals.divergence, 0.0),
    keep=keep,
    diagnostics=trust_regions.diagnostics(config.rule, signals, config.bounds),
    top_log_probs=frozen.top_log_probs,
  )
  return jnp.sum(jnp.where(mask, losses, 0.0) * context.weights), decisions


def measure_divergence(
  config: LossConfig, tokens: Array, anchor: TokenStats, current: TokenStats
) -> Array:
  """The configured divergence of every token: f32, the shape of `tokens`."""
  row = divergences.DIVERGENCES[config.divergence]
  if row.records == 'top_k' and config.top_k_set == 'replace_kth':
    anchor = divergences.replace_kth(tokens, anchor)
    current = divergences.replace_kth(tokens, current)
  return row.fn(tokens, anchor, current)


def imitation_loss(
  policy: Policy,
  layout: VocabularyConfig,
  prompt_length: int,
  params: Params,
  batch: Demonstrations,
  weights: Array,
  anchor_head: None = None,
) -> tuple[Array, Array]:
  """-log pi of the demonstrated tokens by weight: f32 [], and by token.

  Arguments as in `policy_loss`; there is no anchor.
  """
  del anchor_head
  mask = batch.completion_mask[:, prompt_length:]
  hidden, _ = scoring.completion_hidden(
    policy,
    params,
    batch.tokens,
    batch.token_mask,
    prompt_length=prompt_length,
    shared_rows=1,
  )
  nothing = jnp.zeros(mask.shape, jnp.float32)
  targets = Targets(
    tokens=batch.tokens[:, prompt_length:],
    mask=mask,
    anchor=TokenStats(log_probs=nothing),
    context=(weights, mask),
  )
  return head_loss(layout, _IMITATION, policy.head(params), hidden, targets)


def _negative_log_likelihood(
  context: tuple[Array, Array], current: TokenStats, divergence: Array
) -> tuple[Array, Array]:
  del divergence
  weights, mask = context
  losses = jnp.where(mask, -current.log_probs, 0.0)
  return jnp.sum(losses * weights), jax.lax.stop_gradient(losses)


_IMITATION = HeadLoss(
  divergence_fn=None,
  integrand=None,
  loss_from_stats=_negative_log_likelihood,
  needs_full_sequence=False,
  with_entropy=False,
  with_top_k=False,
)
