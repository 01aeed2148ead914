"""Meters: what the successors of DPPO would see in a run, whatever it trains.

Of the K recorded log-probs of every token, so that they cost no product:

  drift      coefficients c of Top-K score centering (`ops/centering.py`), also
             where centering is off
  direction  where the predictive direction and the sampled one disagree
  certificate  where bounds of the exact TV lie on one side of delta
"""

import dataclasses

import jax.numpy as jnp

from dppo_jax.base import Array, Movement, TokenStats
from dppo_jax.learner.loss_config import Context, LossConfig
from dppo_jax.learner.movement import Sums, candidate_weights, estimate_sums
from dppo_jax.ops import centering, divergences
from dppo_jax.ops.trust_regions import TRUST_REGIONS

_DRIFT = ('drift/coefficient_sum', 'drift/coefficient_abs', 'drift/topk_mass')
_DISAGREE = 'direction/disagree'
_DECIDED = 'certificate/decided'
# Below it a rate and a difference of probabilities are f32 rounding.
_ROUNDING = 1e-6


def names(config: LossConfig) -> tuple[str, ...]:
  """Names of the meters of a loss, where K log-probs are recorded."""
  drift = _DRIFT if config.anchor == 'rollout' else ()
  decided = (_DECIDED,) if _has_certificate(config) else ()
  return (*drift, _DISAGREE, *decided)


def measure(
  config: LossConfig,
  context: Context,
  tokens: Array,
  anchor: TokenStats,
  current: TokenStats,
  movement: Movement,
  sums: Sums,
) -> dict[str, Array]:
  """Meters of tokens by name, f32 of their shape; their means are metrics.

  Args:
    config: of the loss.
    context: of the tokens.
    tokens: i32 [...].
    anchor: with K log-probs.
    current: with those of the same ids.
    movement: as measured.
    sums: those of its rate.
  """
  found: dict[str, Array] = {}
  if config.anchor == 'rollout':
    weighed = _as_trained(config)
    weight_fn = candidate_weights(weighed, context, movement, sums)
    found |= zip(_DRIFT, drift(weight_fn, anchor, current), strict=True)
  rate = movement.rate
  if rate is None:
    rate = estimated_rate(config, tokens, anchor, current)
  found[_DISAGREE] = disagree(context.advantages, anchor, current, rate)
  if _has_certificate(config):
    lower, upper = divergences.tv_bounds(tokens, anchor, current)
    delta = jnp.where(
      context.advantages > 0, config.bounds.delta_high, config.bounds.delta_low
    )
    found[_DECIDED] = (lower > delta) | (upper <= delta)
  return {name: value.astype(jnp.float32) for name, value in found.items()}


def _as_trained(config: LossConfig) -> LossConfig:
  """The loss, by which candidates are weighed as a sampled token would be.

  With centering off that is with M(v), where the rule is of single tokens: the
  drift is that of what is trained. Centering takes off what it is told to.
  """
  of_tokens = TRUST_REGIONS[config.rule].scope == 'token'
  if config.centering == 'off' and of_tokens:
    return dataclasses.replace(config, centering_mask='candidate')
  return config


def drift(
  weight_fn: centering.WeightFn, anchor: TokenStats, current: TokenStats
) -> tuple[Array, Array, Array]:
  """Sums over H, mu's K likeliest tokens, of c, |c| and pi: [...] each.

  Without a norm of any gradient: what Top-K centering would take off the
  logits of a position is c - pi sum c, and is nothing where all c are 0.
  """
  log_mu, log_pi = anchor.top_log_probs, current.top_log_probs
  if log_mu is None or log_pi is None:
    raise ValueError('sampling.top_k: meters need recorded log-probs')
  c = centering.top_k_coefficients(weight_fn, log_pi, log_mu)
  mass = jnp.sum(jnp.exp(log_pi), axis=-1)
  return jnp.sum(c, axis=-1), jnp.sum(jnp.abs(c), axis=-1), mass


def estimated_rate(
  config: LossConfig, tokens: Array, anchor: TokenStats, current: TokenStats
) -> Array:
  """Rate of the Top-K divergence in the unit of the configured one: [...]."""
  row = divergences.DIVERGENCES[top_k_relative(config.divergence)]
  rate = row.rate or divergences.KL_RATE
  sums = estimate_sums(config, rate, tokens, anchor, current)
  mu, pi = jnp.exp(anchor.log_probs), jnp.exp(current.log_probs)
  return rate.combine(mu, pi, *sums)


def top_k_relative(divergence: str) -> str:
  """Name of the Top-K divergence in the unit of another."""
  unit = divergences.DIVERGENCES[divergence].unit
  return 'topk_tv' if unit == 'probability' else 'topk_kl'


def disagree(
  advantages: Array, anchor: TokenStats, current: TokenStats, rate: Array
) -> Array:
  """Whether A D' and A (pi - mu) have different signs: bool [...].

  Not where A is 0, or where both are f32 rounding.
  """
  moved = jnp.exp(current.log_probs) - jnp.exp(anchor.log_probs)
  real = jnp.maximum(jnp.abs(rate), jnp.abs(moved)) > _ROUNDING
  differ = (advantages * rate > 0) != (advantages * moved > 0)
  return (advantages != 0) & real & differ


def _has_certificate(config: LossConfig) -> bool:
  row = divergences.DIVERGENCES[config.divergence]
  rule = TRUST_REGIONS[config.rule]
  compares = rule.reads_divergence and 'delta_low' in rule.reads
  return row.unit == 'probability' and compares
