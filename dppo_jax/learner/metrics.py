"""Metrics of a train step's decisions.

Signs refer to the advantage, tokens to completion tokens, and mu to the
policy that sampled. Shares are of all completion tokens.
"""

import jax.numpy as jnp

from dppo_jax.base import Array, Batch, Decisions, Metrics
from dppo_jax.ops.masking import masked_max, masked_mean, masked_min
from dppo_jax.ops.ratios import ratio

# DPPO section 5.3: A < 0 and mu - pi of at least this is a bad update.
BAD_UPDATE = 0.5
# DPPO section 6: below this probability a token counts as rare.
RARE = 0.1


def trust_region_metrics(
  batch: Batch,
  decisions: Decisions,
  num_minibatches: int,
  max_turns: int = 0,
) -> Metrics:
  """Metrics of one train step, over the tokens of all its updates.

  Args:
    batch: rows in the order of `decisions`, [B, T].
    decisions: [B, R].
    num_minibatches: the first of so many saw the parameters that sampled.
    max_turns: turns of a conversation to tell apart.

  Returns:
    `trust_region/fraction_masked`, share of tokens with M = 0, `…_negative`
    and `…_positive` by sign of A, `…_rare` with mu < .1, `…_turn_1` and so on
    of the tokens of that turn;
    `trust_region/mean_dropped_weight`, mean of 1 - M: the same number for a
    rule of zeros and ones, and what a soft rule takes away;
    `trust_region/divergence_mean` and `…_max`, unit of the divergence;
    `trust_region/bad_updates`, share with A < 0 and mu - pi >= .5;
    `mismatch/mean_abs`, `mismatch/max` and `mismatch/min` of pi - mu at the
    update;
    `mismatch/first_update_mean_abs`, before any parameter changed, so the
    sampler's own; `ratio/mean` and `…_max` of pi / mu; and the means of the
    rule's own diagnostics (CPPO: `cppo/budget_effective`, delta_b per position
    in the unit of the divergence, and `cppo/masked_by_budget`, share of
    tokens that only the prefix budget masked) and of the meters
    (`learner/meters.py`). Of a model with experts, means over microbatches of
    `moe.router_metrics`, `router/…`.
  """
  first = batch.tokens.shape[1] - decisions.keep.shape[1]
  mask = batch.completion_mask[:, first:]
  advantages = batch.advantages[:, first:]
  rollout_log_probs = batch.rollout.log_probs[:, first:]
  mu, pi = jnp.exp(rollout_log_probs), jnp.exp(decisions.log_probs)
  moved = pi - mu
  masked = (decisions.keep == 0) & mask
  bad = (advantages < 0) & (-moved >= BAD_UPDATE)
  ratios = ratio(decisions.log_probs, rollout_log_probs)
  rows = mask.shape[0] // num_minibatches

  def share(tokens: Array) -> Array:
    return masked_mean(tokens.astype(jnp.float32), mask)

  return {
    'trust_region/fraction_masked': share(masked),
    'trust_region/fraction_masked_negative': share(masked & (advantages < 0)),
    'trust_region/fraction_masked_positive': share(masked & (advantages > 0)),
    'trust_region/fraction_masked_rare': share(masked & (mu < RARE)),
    'trust_region/mean_dropped_weight': masked_mean(1.0 - decisions.keep, mask),
    'trust_region/divergence_mean': masked_mean(decisions.divergence, mask),
    'trust_region/divergence_max': masked_max(decisions.divergence, mask),
    'trust_region/bad_updates': share(bad),
    'mismatch/mean_abs': masked_mean(jnp.abs(moved), mask),
    'mismatch/max': masked_max(moved, mask),
    'mismatch/min': masked_min(moved, mask),
    'mismatch/first_update_mean_abs': masked_mean(
      jnp.abs(moved[:rows]), mask[:rows]
    ),
    'ratio/mean': masked_mean(ratios, mask),
    'ratio/max': masked_max(ratios, mask),
    **{
      name: masked_mean(values, mask)
      for name, values in decisions.diagnostics.items()
    },
    **{name: jnp.mean(values) for name, values in decisions.router.items()},
    **_masked_by_turn(batch, masked, max_turns),
  }


def _masked_by_turn(batch: Batch, masked: Array, max_turns: int) -> Metrics:
  """Share of M = 0 among the tokens of each turn of conversations."""
  if batch.turn is None:
    return {}
  turn = batch.turn[:, batch.tokens.shape[1] - masked.shape[1] :]
  of_batch = batch.completion_mask[:, batch.tokens.shape[1] - masked.shape[1] :]
  return {
    f'trust_region/fraction_masked_turn_{k}': masked_mean(
      masked.astype(jnp.float32), of_batch & (turn == k)
    )
    for k in range(1, max_turns + 1)
  }
