"""The policy loss of a batch, and the decision about each token.

`reference_loss` is the definition, `policy_loss` what trains: the same loss
from hidden states, fused with the LM head.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from dppo_jax.base import (
  Array,
  Batch,
  Decisions,
  Demonstrations,
  Movement,
  Params,
  TokenStats,
)
from dppo_jax.learner import meters, scoring
from dppo_jax.learner.loss_config import Context, LossConfig
from dppo_jax.learner.movement import (
  candidate_weights,
  certify_fn,
  divergence_of,
  measure,
  measure_rate,
  rate_of,
  ratio_limits,
)
from dppo_jax.lm_head.fused_loss import head_loss
from dppo_jax.lm_head.inputs import HeadLoss, Targets, VocabularyConfig
from dppo_jax.models import moe
from dppo_jax.models.policy import Policy, with_base
from dppo_jax.ops import centering, divergences, objectives, trust_regions
from dppo_jax.ops.log_probs import restrict, token_stats
from dppo_jax.ops.ratios import ratio, sequence_ratio

# (head of the anchor [V, D] or None, frozen weights below an adapter or None).
Shared = tuple[Array | None, Params | None] | None


def policy_loss(
  policy: Policy,
  layout: VocabularyConfig,
  config: LossConfig,
  params: Params,
  batch: Batch,
  weights: Array,
  shared: Shared = None,
  *,
  adapter_scale: float | None = None,
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
    shared: (anchor head [V, D], that `anchor.hidden` was read by, where whole
      distributions are compared; frozen weights below an adapter).
    adapter_scale: of what the adapter adds; None where everything trains.
    with_top_k: whether the decisions hold pi's log-probs of the recorded ids.

  Returns:
    f32 []; and the decisions.

  Raises:
    ValueError: the batch lacks stats that the config needs.
  """
  anchor_head, base = (None, None) if shared is None else shared
  params = with_base(base, params, adapter_scale)
  targets = make_targets(config, batch, weights, anchor_head)
  hidden, routing = scoring.completion_hidden(
    policy,
    params,
    batch.tokens,
    batch.token_mask,
    batch.routes,
    prompt_length=config.prompt_length,
    shared_rows=config.shared_rows,
  )
  loss = make_head_loss(config, with_top_k=with_top_k)
  found: Any = head_loss(layout, loss, policy.head(params), hidden, targets)
  if routing is None:
    return found
  total, decisions = found
  if config.load_balance_coefficient:
    total += config.load_balance_coefficient * moe.load_balance(routing)
  measured = jax.lax.stop_gradient(moe.router_metrics(routing))
  router = {
    name: jnp.broadcast_to(value, weights.shape[:1])
    for name, value in measured.items()
  }
  return total, dataclasses.replace(decisions, router=router)


def reference_loss(
  config: LossConfig,
  logits: Array,
  targets: Targets,
  anchor_logits: Array | None = None,
) -> tuple[Array, Decisions]:
  """Loss of a batch from its logits: the definition, which holds [B, R, V].

  logits -> stats -> divergence -> loss. `head_loss` of `make_head_loss` gives
  the same from hidden states, without an array of tokens x V.

  Args:
    config: which loss.
    logits: [B, R, V], entry r predicts `targets.tokens[:, r]`; differentiable.
    targets: see `make_targets`.
    anchor_logits: [B, R, V], where whole distributions are compared.

  Returns:
    f32 [], and the decisions without a gradient.
  """
  stats = functools.partial(
    token_stats, tokens=targets.tokens, temperature=config.temperature
  )
  entropy = config.entropy_coefficient != 0
  mu = whole_mu = targets.anchor
  logits = restrict(logits, mu.support)
  pi = whole_pi = stats(logits, top_ids=mu.top_ids, with_entropy=entropy)
  if anchor_logits is not None:  # All ids are recorded.
    ids = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    ids = jnp.broadcast_to(ids, logits.shape)
    anchor_temperature = config.temperature * (1.0 + config.anchor_slip)
    whole_mu = stats(
      restrict(anchor_logits, mu.support),
      top_ids=ids,
      temperature=anchor_temperature,
      with_entropy=False,
    )
    whole_pi = stats(logits, top_ids=ids, with_entropy=entropy)
  exact = divergences.DIVERGENCES[config.divergence].records == 'hidden'
  both = (whole_mu, whole_pi) if exact else (mu, pi)
  movement, sums = measure(config, targets.tokens, *both)
  certify = certify_fn(config)
  if certify is not None:
    lower, undecided = certify(targets.context, targets.tokens, mu, pi)
    divergence = jnp.where(undecided, movement.divergence, lower)
    movement = dataclasses.replace(movement, divergence=divergence)
  if mu.top_log_probs is not None:
    found = meters.measure(
      config, targets.context, targets.tokens, mu, pi, movement, sums
    )
    movement = dataclasses.replace(movement, meters=found)
  if config.centering != 'off':
    exact = config.centering == 'exact'
    centre = centering.centre(
      candidate_weights(config, targets.context, movement, sums),
      whole_pi if exact else pi,
      whole_mu if exact else mu,
      exact=exact,
    )
    pi = dataclasses.replace(pi, centre=centre)
  return loss_from_stats(config, targets.context, pi, movement)


def make_head_loss(config: LossConfig, *, with_top_k: bool = False) -> HeadLoss:
  """The loss in the form that the fused LM head takes."""
  rate = rate_of(config)
  return HeadLoss(
    divergence_fn=divergence_of(config),
    rate_fn=functools.partial(measure_rate, config) if rate else None,
    integrand=divergences.DIVERGENCES[config.divergence].integrand,
    rate=rate,
    certify_fn=certify_fn(config),
    loss_from_stats=functools.partial(loss_from_stats, config),
    needs_full_sequence=needs_full_sequence(config),
    with_entropy=config.entropy_coefficient != 0,
    with_top_k=with_top_k,
    centering=config.centering,
    candidate_weights=functools.partial(candidate_weights, config),
    meter_fn=functools.partial(meters.measure, config),
    meters=meters.names(config),
    anchor_slip=config.anchor_slip,
  )


def make_targets(
  config: LossConfig,
  batch: Batch,
  weights: Array,
  anchor_head: Array | None = None,
) -> Targets:
  """Completion columns [B, R] of a batch, and what their loss reads.

  Args:
    config: which loss.
    batch: B rows.
    weights: f32 [B, R], of each completion token; 0.0 where masked.
    anchor_head: [V, D], where whole distributions are compared.

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
  # What could be sampled is of the sampler, whoever is compared with.
  anchor = dataclasses.replace(anchor, support=batch.rollout.support)
  anchor = scoring.completion_columns(anchor, first)
  mask = batch.completion_mask[:, first:]
  return Targets(
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
      anchor_entropy=_anchor_entropy(config, anchor),
    ),
  )


def _anchor_entropy(config: LossConfig, anchor: TokenStats) -> Array | None:
  if not trust_regions.TRUST_REGIONS[config.rule].reads_entropy:
    return None
  if anchor.entropy is None:
    raise ValueError(
      f'trust_region.rule: {config.rule!r} needs the entropy of the anchor,'
      ' which a sampler records; use trust_region.anchor "rollout"'
    )
  return anchor.entropy


def needs_full_sequence(config: LossConfig) -> bool:
  """Whether a token's coefficient depends on tokens after it."""
  scope = trust_regions.TRUST_REGIONS[config.rule].scope
  return scope == 'sequence' or config.importance == 'sequence'


def loss_from_stats(
  config: LossConfig, context: Context, current: TokenStats, movement: Movement
) -> tuple[Array, Decisions]:
  """Loss of a batch, given pi's stats of each token.

  Args:
    config: which loss.
    context: what is fixed during the update.
    current: pi's stats [B, R], differentiable.
    movement: as measured, [B, R].

  Returns:
    f32 [], and the decisions without a gradient.
  """
  mask, advantages = context.mask, context.advantages
  frozen, movement = jax.lax.stop_gradient((current, movement))
  signals = trust_regions.Signals(
    advantages=advantages,
    log_probs=frozen.log_probs,
    anchor_log_probs=context.anchor_log_probs,
    divergence=movement.divergence,
    mask=mask,
    rate=movement.rate,
    anchor_entropy=context.anchor_entropy,
  )
  keep = trust_regions.keep_weights(config.rule, signals, config.bounds)
  weight = _importance_weight(config, context, frozen.log_probs)
  losses = objectives.FORMS[config.loss_form](
    current.log_probs, weight, advantages, keep
  )
  if current.centre is not None:
    masked = keep if config.centering_mask == 'token' else 1.0
    losses = losses + masked * advantages * current.centre
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
    diagnostics={
      **trust_regions.diagnostics(config.rule, signals, config.bounds),
      **{k: jnp.where(mask, v, 0.0) for k, v in movement.meters.items()},
    },
    top_log_probs=frozen.top_log_probs,
  )
  return jnp.sum(jnp.where(mask, losses, 0.0) * context.weights), decisions


def _importance_weight(
  config: LossConfig, context: Context, log_probs: Array
) -> Array:
  """f(pi / mu), truncated: f32 [B, R]."""
  mu, mask = context.rollout_log_probs, context.mask
  if config.importance == 'sequence':
    ratios = sequence_ratio(log_probs, mu, mask)
  elif config.importance == 'least_prefix':
    ratios = objectives.least_prefix_ratio(log_probs, mu, mask)
  else:
    ratios = ratio(log_probs, mu)
  return objectives.importance_weight(ratios, *ratio_limits(config))


def imitation_loss(
  policy: Policy,
  layout: VocabularyConfig,
  prompt_length: int,
  params: Params,
  batch: Demonstrations,
  weights: Array,
  shared: Shared = None,
  *,
  adapter_scale: float | None = None,
) -> tuple[Array, Array]:
  """-log pi of the demonstrated tokens by weight: f32 [], and per token.

  Arguments as in `policy_loss`; there is no anchor.
  """
  base = None if shared is None else shared[1]
  params = with_base(base, params, adapter_scale)
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
  context: tuple[Array, Array], current: TokenStats, movement: Movement
) -> tuple[Array, Array]:
  del movement
  weights, mask = context
  losses = jnp.where(mask, -current.log_probs, 0.0)
  return jnp.sum(losses * weights), jax.lax.stop_gradient(losses)


_IMITATION = HeadLoss(loss_from_stats=_negative_log_likelihood)
