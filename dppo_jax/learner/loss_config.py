"""Axes of the policy loss, and its input beside the policy's own stats."""

import dataclasses

import flax.struct

from dppo_jax.base import Array
from dppo_jax.thresholds import Thresholds


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
  """Independent axes of the policy loss.

  Attributes:
    prompt_length: P, columns before the completion.
    shared_rows: consecutive rows whose prompt is run once.
    temperature: divides the logits.
    rule: a key of `TRUST_REGIONS`.
    divergence: a key of `DIVERGENCES`.
    top_k_set: 'union', the paper's K or K + 1 atoms, or 'replace_kth', the
      authors' code: exactly K.
    anchor: 'rollout' or 'recomputed': whose policy the rule compares.
    bounds: thresholds of the rule.
    loss_form: a key of `FORMS`.
    importance: 'token', pi / mu of each token; 'sequence', its geometric mean
      over the completion; 'least_prefix', that of the token times the least
      one before it; or 'none', 1.
    ratio_cap: C, truncation of pi / mu above.
    ratio_floor: truncation below, 0 for none.
    kl_coefficient: weight of the KL to the reference; 0 switches it off.
    kl_estimator: a key of `KL_ESTIMATORS`.
    entropy_coefficient: weight of the entropy bonus; 0 switches it off.
    load_balance_coefficient: weight of `moe.load_balance` of the rows at hand;
      0 switches it off.
    predictive_tail: 'aggregated' or 'uniform': how the rate of a Top-K
      divergence takes the mass outside it.
    vocab_size: V, for the uniform tail.
    centering: score centering 'off', 'topk' or 'exact', see `ops/centering.py`.
    centering_mask: 'token', M of the sampled token masks its centre as well; or
      'candidate', each candidate has an M of its own.
    anchor_slip: the anchor's logits are divided by 1 + this times the
      temperature.
  """

  prompt_length: int
  shared_rows: int
  temperature: float
  rule: str
  divergence: str
  top_k_set: str
  anchor: str
  bounds: Thresholds
  loss_form: str
  importance: str
  ratio_cap: float
  ratio_floor: float
  kl_coefficient: float
  kl_estimator: str
  entropy_coefficient: float
  load_balance_coefficient: float
  predictive_tail: str
  vocab_size: int
  centering: str
  centering_mask: str
  anchor_slip: float


@flax.struct.dataclass(kw_only=True)
class Context:
  """Input of the decisions beside the policy's own stats; all [B, R].

  Attributes:
    weights: f32, of each token in the loss, 0.0 where masked.
    mask: bool, completion tokens.
    advantages: f32.
    rollout_log_probs: f32, log mu.
    anchor_log_probs: f32, of the policy that the rule compares with.
    reference_log_probs: f32, or None without a KL penalty.
    anchor_entropy: f32, nats, or None where no rule reads it.
  """

  weights: Array
  mask: Array
  advantages: Array
  rollout_log_probs: Array
  anchor_log_probs: Array
  reference_log_probs: Array | None
  anchor_entropy: Array | None = None
