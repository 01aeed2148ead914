"""Measurements of the configured loss: D, its rate, weights of candidates."""

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
    if config.top_k_set == 'replace_kth':
      anchor = divergences.replace_kth(tokens, anchor)
      current = divergences.replace_kth(tokens, current)
    uniform = config.predictive_tail == 'uniform'
    sums = divergences.rate_sums(
      rate,
      tokens,
      anchor,
      current,
      vocab_size=config.vocab_size if uniform else None,
    )
  mu, pi = jnp.exp(anchor.log_probs), jnp.exp(current.log_probs)
  return rate.combine(mu, pi, *sums), sums


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
    (log pi, log mu) [..., n] to weights f32 [..., n].
  """

  def weight(log_pi: Array, log_mu: Array) -> Array:
    shape = log_pi.shape
    pi, mu = (x.reshape(-1, shape[-1]) for x in (log_pi, log_mu))
    weights = objectives.importance_weight(
      trust_regions.ratio(pi, mu), *ratio_limits(config)
    )
    if config.centering_mask == 'candidate':
      signals = _signals_of_candidates(config, context, movement, sums, pi, mu)
      weights = weights * trust_regions.keep_weights(
        config.rule, signals, config.bounds
      )
    return weights.reshape(shape)

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
