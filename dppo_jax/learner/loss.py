"""The policy loss of each completion token, and what was decided about it."""

import dataclasses

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
from dppo_jax.models.policy import Policy
from dppo_jax.ops import divergences, objectives, trust_regions
from dppo_jax.ops.log_probs import token_stats


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
    form: a key of `FORMS`.
    importance: 'token', pi / mu of each token, or 'sequence', its geometric
      mean over the response.
    ratio_cap: C, truncation of pi / mu above.
    ratio_floor: truncation below, 0 for none.
    kl_coefficient: weight of the KL to the reference; 0 switches it off.
    kl_estimator: a key of `KL_ESTIMATORS`.
    entropy_coefficient: weight of the entropy bonus; 0 switches it off.
  """

  prompt_length: int
  shared_rows: int
  temperature: float
  rule: str
  divergence: str
  top_k_set: str
  anchor: str
  bounds: trust_regions.Bounds
  form: str
  importance: str
  ratio_cap: float
  ratio_floor: float
  kl_coefficient: float
  kl_estimator: str
  entropy_coefficient: float


def policy_loss(
  policy: Policy,
  config: LossConfig,
  params: Params,
  batch: Batch,
  *,
  with_top_k: bool = False,
) -> tuple[Array, Decisions]:
  """Loss per completion token: surrogate, KL penalty and entropy bonus.

  Args:
    policy: the model.
    config: which loss.
    params: parameters to differentiate with respect to.
    batch: B rows.
    with_top_k: whether the decisions hold pi's log-probs of the recorded ids.

  Returns:
    f32 [B, R], whatever stands on masked tokens is 0.0; and the decisions.

  Raises:
    ValueError: the batch lacks stats that the config needs.
  """
  first = config.prompt_length
  mask = batch.completion_mask[:, first:]
  advantages = batch.advantages[:, first:]
  tokens = batch.tokens[:, first:]
  rollout = scoring.completion_columns(batch.rollout, first)
  anchor = rollout
  if config.anchor == 'recomputed':
    if batch.recomputed is None:
      raise ValueError(
        'trust_region.anchor: "recomputed" needs Batch.recomputed, the'
        ' trainer\'s own stats; use anchor "rollout" or recompute them'
      )
    anchor = scoring.completion_columns(batch.recomputed, first)

  current = scoring.score(
    policy,
    params,
    batch,
    prompt_length=first,
    shared_rows=config.shared_rows,
    temperature=config.temperature,
    with_entropy=config.entropy_coefficient != 0,
  )
  frozen = jax.lax.stop_gradient(current)
  divergence = measure(config, tokens, anchor, frozen)
  signals = trust_regions.Signals(
    advantages=advantages,
    log_probs=frozen.log_probs,
    anchor_log_probs=anchor.log_probs,
    divergence=divergence,
    mask=mask,
  )
  keep = trust_regions.keep_weights(config.rule, signals, config.bounds)
  if config.importance == 'sequence':
    ratios = trust_regions.sequence_ratio(
      frozen.log_probs, rollout.log_probs, mask
    )
  else:
    ratios = trust_regions.ratio(frozen.log_probs, rollout.log_probs)
  weight = objectives.importance_weight(
    ratios, config.ratio_floor, config.ratio_cap
  )
  loss = objectives.FORMS[config.form](
    current.log_probs, weight, advantages, keep
  )
  if config.kl_coefficient:
    if batch.reference is None:
      raise ValueError(
        'objective.kl_coefficient: a KL penalty needs Batch.reference'
      )
    reference = batch.reference.log_probs[:, first:]
    estimate = objectives.KL_ESTIMATORS[config.kl_estimator]
    penalty = estimate(current.log_probs, reference)
    loss = loss + config.kl_coefficient * penalty
  if current.entropy is not None:
    loss = loss - config.entropy_coefficient * current.entropy
  loss = jnp.where(mask, loss, 0.0)
  decisions = Decisions(
    log_probs=jnp.where(mask, frozen.log_probs, 0.0),
    divergence=jnp.where(mask, divergence, 0.0),
    keep=keep,
    diagnostics=trust_regions.diagnostics(config.rule, signals, config.bounds),
    top_log_probs=frozen.top_log_probs if with_top_k else None,
  )
  return loss, decisions


def measure(
  config: LossConfig, tokens: Array, anchor: TokenStats, current: TokenStats
) -> Array:
  """The configured divergence of every token: f32 [B, R]."""
  row = divergences.DIVERGENCES[config.divergence]
  if row.records == 'top_k' and config.top_k_set == 'replace_kth':
    anchor = divergences.replace_kth(tokens, anchor)
    current = divergences.replace_kth(tokens, current)
  return row.fn(tokens, anchor, current)


def imitation_loss(
  policy: Policy, prompt_length: int, params: Params, batch: Demonstrations
) -> tuple[Array, Array]:
  """-log pi of each demonstrated token: f32 [B, R], and the same as record."""
  hidden = scoring.completion_hidden(
    policy,
    params,
    batch.tokens,
    batch.token_mask,
    prompt_length=prompt_length,
    shared_rows=1,
  )
  stats = token_stats(
    policy.head(params, hidden),
    batch.tokens[:, prompt_length:],
    top_ids=None,
    temperature=1.0,
    with_entropy=False,
  )
  mask = batch.completion_mask[:, prompt_length:]
  loss = jnp.where(mask, -stats.log_probs, 0.0)
  return loss, jax.lax.stop_gradient(loss)
