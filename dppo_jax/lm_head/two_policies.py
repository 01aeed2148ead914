"""A chunk's distributions of both policies, and what is made of them."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dppo_jax.base import Array, Integrand, Movement, TokenStats
from dppo_jax.lm_head.vocabulary_shard import (
  ChunkStats,
  Shard,
  max_over_columns,
  project,
  put_at_token,
  restrict,
  sum_over_columns,
)
from dppo_jax.ops import centering
from dppo_jax.ops.centering import WeightFn
from dppo_jax.ops.divergences import Rate
from dppo_jax.ops.ratios import MAX_LOG_RATIO

# The smallest normal f32, about; below it there is no precision.
_TINY = 1.2e-38


class TwoPolicies(NamedTuple):
  """Probabilities of the columns of this device: f32 [C, width] each."""

  mu: Array
  pi: Array
  log_ratio: Array


class Centre(NamedTuple):
  """The centring term of a chunk, see `ops/centering.py`.

  Attributes:
    value: sum_v c_v log pi_v, f32 [C].
    own: c of the token itself, f32 [C].
    others: sum of c over all other tokens, f32 [C].
    coefficients: c, f32 [C, K], or [C, width] of all columns of this device;
      0.0 at the token itself.
    ids: i32 [C, K], or None for all columns.
  """

  value: Array
  own: Array
  others: Array
  coefficients: Array
  ids: Array | None


def distributions(
  shard: Shard,
  anchor_weights: Any,
  anchor: TokenStats,
  temperature: float,
  chunk: ChunkStats,
  tokens: Array,
) -> TwoPolicies:
  """Both distributions of a chunk.

  The anchor's logits are computed again from its hidden states, so that no
  distribution is ever stored. `temperature` is that of the anchor, `chunk` has
  been divided by its own.
  """
  hidden: Any = anchor.hidden
  logits = project(shard, anchor_weights, hidden, temperature)
  logits = restrict(shard, logits, anchor.support)
  largest = max_over_columns(shard, logits)
  if shard.on_cpu:
    # No column is above it. One is looked at so that XLA does not fuse the
    # product with the exponential, which takes twice as long.
    largest = jnp.maximum(largest, logits[:, 0])
  shifted = jnp.exp(logits - largest[:, None])
  if shard.on_cpu:
    shifted = jax.lax.optimization_barrier(shifted)
  total = shard.axes.reduce_sum(sum_over_columns(shard, shifted))
  log_sum = jnp.log(total)
  shift = chunk.largest - largest + (chunk.log_sum - log_sum)
  column, here = shard.local(tokens)
  mine = here[:, None] & (jnp.arange(shard.width)[None] == column[:, None])
  whole = jnp.where(mine, chunk.own[:, None], chunk.others)
  return TwoPolicies(
    shifted * jnp.exp(-log_sum)[:, None],
    whole * jnp.exp(-chunk.log_sum)[:, None],
    logits - chunk.logits + shift[:, None],
  )


def measure(
  shard: Shard,
  integrand: Integrand,
  rate: Rate | None,
  both: TwoPolicies,
  anchor: TokenStats,
  chunk: ChunkStats,
) -> tuple[Movement, tuple[Array, ...]]:
  """Movement by whole distributions [C], and the sums of its rate.

  One reduction over the devices.
  """
  integrands = (integrand, *(rate.integrands if rate else ()))
  found = [sum_over_columns(shard, g(*both)) for g in integrands]
  divergence, *sums = shard.axes.reduce_sum(jnp.stack(found))
  # Not negative but for rounding: a divergence.
  divergence = jnp.maximum(divergence, 0.0)
  if rate is None:
    return Movement(divergence=divergence), ()
  mu, pi = jnp.exp(anchor.log_probs), jnp.exp(chunk.stats.log_probs)
  of_token = rate.combine(mu, pi, *sums)
  return Movement(divergence=divergence, rate=of_token), tuple(sums)


def centre(
  shard: Shard,
  weight_fn: WeightFn,
  tokens: Array,
  anchor: TokenStats,
  chunk: ChunkStats,
  both: TwoPolicies | None,
) -> Centre:
  """The centring term of a chunk; one reduction over devices if exact.

  Args:
    shard: the columns.
    weight_fn: weights of candidates.
    tokens: i32 [C].
    anchor: stats of the sampler [C], with K log-probs.
    chunk: of the forward pass, with log pi of the same ids.
    both: for exact centering; None sums over the recorded ids.
  """
  if both is not None:
    return _exact_centre(shard, weight_fn, tokens, chunk, both)
  log_mu, log_pi = anchor.top_log_probs, chunk.stats.top_log_probs
  ids = chunk.stats.top_ids
  if log_mu is None or log_pi is None or ids is None:
    raise ValueError(
      'objective.centering: top-K log-probs are needed and none were'
      ' recorded; set sampling.top_k > 0'
    )
  c = centering.top_k_coefficients(weight_fn, log_pi, log_mu)
  is_token = ids == tokens[:, None]
  others = jnp.where(is_token, 0.0, c)
  return Centre(
    jnp.sum(c * log_pi, -1),
    jnp.sum(jnp.where(is_token, c, 0.0), -1),
    jnp.sum(others, -1),
    others,
    ids,
  )


def _exact_centre(
  shard: Shard,
  weight_fn: WeightFn,
  tokens: Array,
  chunk: ChunkStats,
  both: TwoPolicies,
) -> Centre:
  """`centre` over the whole vocabulary.

  Numerics: ratios are quotients of the two distributions, so that nothing but
  exp(z - largest) of either is kept for the gradient; what f32 holds no
  probability of has no part in c. In the value log pi of such a token is -87,
  and more of every other: the gradient does not read it.
  """
  log_pi = chunk.logits - (chunk.largest + chunk.log_sum)[:, None]
  ratios = both.pi / jnp.maximum(both.mu, _TINY)
  ratios = jnp.minimum(ratios, math.exp(MAX_LOG_RATIO))
  c = both.mu * weight_fn(log_pi, log_pi + both.log_ratio, ratios)
  column, here = shard.local(tokens)
  log_ratio = jnp.take_along_axis(both.log_ratio, column[:, None], 1)
  own_log_pi = chunk.stats.log_probs[:, None]
  own = centering.exact_coefficients(
    weight_fn, own_log_pi, own_log_pi + log_ratio
  )
  own = jnp.where(here, own[:, 0], 0.0)
  c = put_at_token(shard, c, tokens, jnp.zeros_like(own))
  kept = jnp.log(jnp.maximum(chunk.others, _TINY)) - chunk.log_sum[:, None]
  value, others, own = shard.axes.reduce_sum(
    jnp.stack(
      [sum_over_columns(shard, c * kept), sum_over_columns(shard, c), own]
    )
  )
  return Centre(value + own * chunk.stats.log_probs, own, others, c, None)
