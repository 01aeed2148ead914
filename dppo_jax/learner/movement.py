"""Measurements of the configured loss: D, its rate, weights of candidates."""

from collections.abc import Callable
import dataclasses
import functools

import jax
import jax.numpy as jnp

from dppo_jax.base import Array, DivergenceFn, Movement, Signals, TokenStats
from dppo_jax.learner.loss_config import Context, LossConfig
from dppo_jax.ops import divergences, objectives, trust_regions
from dppo_jax.ops.centering import WeightFn

# What the rate of a divergence is made of, see `divergences.Rate`.
Sums = tuple[Array, ...]
# (context, tokens, anchor, current) to a lower bound, and where it is open.
CertifyFn = Callable[
  [Context, Array, TokenStats, TokenStats], tuple[Array, Array]
]
# f32 rounding of a divergence in probability.
_ROUNDING = 1e-6


def keeps_hidden(config: LossConfig) -> bool:
  """Whether whole distributions are compared: the sampler's states are kept."""
  records = divergences.DIVERGENCES[config.divergence].records
  return records == 'hidden' or config.centering == 'exact'


def rate_of(config: LossConfig) -> divergences.Rate | None:
  """The rate that the direction reads, or None.

  Raises:
    ValueError: the divergence has none.
  """
  if config.bounds.direction != 'predictive':
    return None
  rate = divergences.DIVERGENCES[config.divergence].rate
  if rate is None and divergences.DIVERGENCES[config.divergence].certified:
    raise ValueError(
      "trust_region.direction: 'predictive' needs the rate of every token, and"
      f" {config.divergence!r} measures some; use 'exact_tv'"
    )
  if rate is None:
    raise ValueError(
      f"trust_region.direction: 'predictive' on {config.divergence!r} is"
      " 'away', as its rate has the sign of pi - mu; use 'away', or a Top-K or"
      ' exact divergence'
    )
  return rate


def divergence_of(config: LossConfig) -> DivergenceFn:
  """The configured divergence, a function of recorded stats."""
  row = divergences.DIVERGENCES[config.divergence]
  if row.records == 'top_k' and config.top_k_set == 'replace_kth':
    return functools.partial(divergences.on_k_atoms, row.fn)
  return row.fn


def measure(
  config: LossConfig, tokens: Array, anchor: TokenStats, current: TokenStats
) -> tuple[Movement, Sums]:
  """Movement from recorded stats, and the sums of its rate; any shape.

  Args:
    config: which divergence, and whether its rate is read.
    tokens: i32 [...].
    anchor: stats [...]; of all ids for an exact divergence.
    current: stats [...], of the same ids.
  """
  divergence = divergence_of(config)(tokens, anchor, current)
  if rate_of(config) is None:
    return Movement(divergence=divergence), ()
  rate, sums = measure_rate(config, tokens, anchor, current)
  return Movement(divergence=divergence, rate=rate), sums


def measure_rate(
  config: LossConfig, tokens: Array, anchor: TokenStats, current: TokenStats
) -> tuple[Array, Sums]:
  """Rate of the divergence, and its sums; arguments as in `measure`."""
  rate = rate_of(config)
  if rate is None:
    raise ValueError("trust_region.direction: only 'predictive' reads a rate")
  if divergences.DIVERGENCES[config.divergence].records == 'hidden':
    sums = divergences.exact_rate_sums(rate, anchor, current)
  else:
    sums = estimate_sums(config, rate, tokens, anchor, current)
  mu, pi = jnp.exp(anchor.log_probs), jnp.exp(current.log_probs)
  return rate.combine(mu, pi, *sums), sums


def certify(
  config: LossConfig,
  context: Context,
  tokens: Array,
  anchor: TokenStats,
  current: TokenStats,
) -> tuple[Array, Array]:
  """Lower bound of D, and where the bounds do not decide D > delta: [...].

  Where they do, the lower bound is on the same side of delta as D.

  Args:
    config: with a certified divergence.
    context: of the tokens.
    tokens: i32 [...].
    anchor: with K log-probs.
    current: with those of the same ids.

  Numerics: a bound within f32 rounding of delta, 1e-6, decides nothing.
  """
  lower, upper = divergences.tv_bounds(tokens, anchor, current)
  delta = jnp.where(
    context.advantages > 0, config.bounds.delta_high, config.bounds.delta_low
  )
  decided = (lower > delta + _ROUNDING) | (upper < delta - _ROUNDING)
  return lower, ~decided & context.mask


def certify_fn(config: LossConfig) -> CertifyFn | None:
  """`certify` of a loss, or None where every token is measured.

  Raises:
    ValueError: the rule compares D with something other than delta.
  """
  if not divergences.DIVERGENCES[config.divergence].certified:
    return None
  if config.rule != 'divergence':
    raise ValueError(
      f'trust_region.divergence: {config.divergence!r} decides D > delta and'
      f" nothing else, and rule {config.rule!r} asks for more; use 'exact_tv',"
      " or rule 'divergence'"
    )
  return functools.partial(certify, config)


def estimate_sums(
  config: LossConfig,
  rate: divergences.Rate,
  tokens: Array,
  anchor: TokenStats,
  current: TokenStats,
) -> Sums:
  """Sums of a rate from recorded log-probs; arguments as in `measure`."""
  if config.top_k_set == 'replace_kth':
    anchor = divergences.replace_kth(tokens, anchor)
    current = divergences.replace_kth(tokens, current)
  uniform = config.predictive_tail == 'uniform'
  return divergences.rate_sums(
    rate,
    tokens,
    anchor,
    current,
    vocab_size=config.vocab_size if uniform else None,
  )


def candidate_weights(
  config: LossConfig, context: Context, movement: Movement, sums: Sums
) -> WeightFn:
  """The weight that a token would have had, had it been sampled.

  The importance weight f(pi_v / mu_v); times M(v), the rule's decision about v,
  where `centering_mask` is 'candidate'. Of a Top-K or exact divergence D is one
  number of the position and only the direction depends on v.

  Args:
    config: which loss.
    context: of the positions, [...] leaves.
    movement: of the positions, [...].
    sums: of `measure`, [...] each.

  Returns:
    (log pi, log mu, pi / mu) [..., n] to weights f32 [..., n].
  """

  def weight(log_pi: Array, log_mu: Array, ratios: Array) -> Array:
    weights = objectives.importance_weight(ratios, *ratio_limits(config))
    if config.centering_mask != 'candidate':
      return weights
    pi, mu = (x.reshape(-1, x.shape[-1]) for x in (log_pi, log_mu))
    signals = _signals_of_candidates(config, context, movement, sums, pi, mu)
    keep = trust_regions.keep_weights(config.rule, signals, config.bounds)
    return weights * keep.reshape(weights.shape)

  return weight


def ratio_limits(config: LossConfig) -> tuple[float, float]:
  """Floor and cap of the importance weight; both 1 where there is none."""
  if config.importance == 'none':
    return 1.0, 1.0
  return config.ratio_floor, config.ratio_cap


def _signals_of_candidates(
  config: LossConfig,
  context: Context,
  movement: Movement,
  sums: Sums,
  log_pi: Array,
  log_mu: Array,
) -> Signals:
  """Signals as if each candidate had been sampled: [positions, n]."""

  def of_position(value: Array) -> Array:
    return value.reshape(-1)[:, None]

  row = divergences.DIVERGENCES[config.divergence]
  divergence = of_position(movement.divergence)
  if row.records == 'nothing':
    of_two = TokenStats(log_probs=log_mu), TokenStats(log_probs=log_pi)
    divergence = row.fn(jnp.zeros((), jnp.int32), *of_two)
  signals = Signals(
    advantages=of_position(context.advantages),
    log_probs=log_pi,
    anchor_log_probs=log_mu,
    divergence=divergence,
    mask=jnp.ones((), bool),
  )
  rate, entropy = rate_of(config), context.anchor_entropy
  if rate is not None:
    of_sums = (of_position(value) for value in sums)
    signals = dataclasses.replace(
      signals, rate=rate.combine(jnp.exp(log_mu), jnp.exp(log_pi), *of_sums)
    )
  if entropy is not None:
    signals = dataclasses.replace(signals, anchor_entropy=of_position(entropy))

  def whole(leaf: Array) -> Array:
    return jnp.broadcast_to(leaf, log_pi.shape)

  return jax.tree.map(whole, signals)
