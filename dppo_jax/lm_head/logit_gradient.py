"""The gradient of a chunk's logits, in closed form."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dppo_jax.base import Array
from dppo_jax.lm_head.two_policies import Centre
from dppo_jax.lm_head.vocabulary_shard import (
  ChunkStats,
  LogitGradient,
  Shard,
)

# A scale that is no gradient, as exp(z - largest) <= 1, and has an inverse.
_LEAST_SCALE = 1e-30


class Slopes(NamedTuple):
  """dL / d(log pi, H, centre) of every token, f32 [B·R]; None if not read."""

  log_probs: Array
  entropy: Array | None
  centre: Array | None


def logit_gradient(
  shard: Shard,
  chunk: ChunkStats,
  tokens: Array,
  slopes: Slopes,
  centre: Centre | None,
  temperature: float,
  dtype: Any,
) -> LogitGradient:
  """a (onehot(y) - p) - h p (log p + H) + e (c - p sum c), over temperature.

  Without h and e the columns are exp(z - largest), which the forward pass has
  made, and all that differs between tokens is a scale per row. It multiplies
  the rows of both products, so that no pass over [C, width] is needed for it.

  Args:
    shard: the columns.
    chunk: of the forward pass.
    tokens: i32 [C].
    slopes: a, h and e, f32 [C] each.
    centre: with the coefficients c, or None.
    temperature: divides the logits.
    dtype: of the columns.

  Numerics: a (1 - p) of the token itself is a times the share of the others,
  and log p + H is (z - largest) less its mean: nothing is the difference of
  numbers that are nearly equal. The token itself stays f32; the others are f32
  and cast once, so that the sum over the vocabulary, 0, is off by half a unit
  in the last place of a (1 - p) at most.
  """
  pulls = _pulls(slopes, centre, temperature)
  inverse = 1.0 / (chunk.own + chunk.rest)
  # (a + e c_y) (1 - p_y) - p_y (the pull of the others) of the token itself.
  slope = slopes.log_probs / temperature + pulls.own
  own = slope * chunk.rest * inverse - pulls.others * chunk.own * inverse
  scale = -(slope + pulls.others) * inverse  # What multiplies exp of a column.
  if chunk.mean_below is None and pulls.columns is None:
    columns = chunk.others.astype(dtype)
    if pulls.candidates is not None:
      columns, scale = _put_scaled_candidates(
        shard, columns, chunk, tokens, pulls.candidates, scale
      )
    if pulls.candidates is None or not shard.on_cpu:
      # Written once, with their sum, and not computed again for each product.
      # A CPU copies what a barrier holds after a scatter.
      columns = jax.lax.optimization_barrier(columns)
    return LogitGradient(columns, scale, own)
  h = None
  if chunk.mean_below is None or slopes.entropy is None:
    columns = chunk.others * scale[:, None]
  else:
    h = slopes.entropy / temperature
    above = chunk.logits - chunk.largest[:, None] - chunk.mean_below[:, None]
    columns = chunk.others * (scale[:, None] - (h * inverse)[:, None] * above)
    own_above = chunk.own_below - chunk.mean_below
    own -= h * chunk.own * inverse * own_above
  if pulls.columns is not None:
    columns = columns + pulls.columns
  columns = columns.astype(dtype)
  if pulls.candidates is not None:
    columns = _put_candidates(
      shard, columns, chunk, tokens, pulls.candidates, slope + pulls.others, h
    )
  if not shard.on_cpu:
    columns = jax.lax.optimization_barrier(columns)
  return LogitGradient(columns, None, own)


class _Pulls(NamedTuple):
  """What a centre adds to the gradient: e c, over the temperature.

  Attributes:
    own: of the token itself, f32 [C].
    others: sum over all other tokens, f32 [C].
    columns: of every column here, f32 [C, width], where all are in the sum; 0
      at the token itself, as are the next.
    candidates: ids and e c, [C, K] each.
  """

  own: Array | float
  others: Array | float
  columns: Array | None = None
  candidates: tuple[Array, Array] | None = None


def _pulls(slopes: Slopes, centre: Centre | None, temperature: float) -> _Pulls:
  if centre is None or slopes.centre is None:
    return _Pulls(0.0, 0.0)
  scale = slopes.centre / temperature
  own, others = scale * centre.own, scale * centre.others
  pull = scale[:, None] * centre.coefficients
  if centre.ids is None:
    return _Pulls(own, others, columns=pull)
  return _Pulls(own, others, candidates=(centre.ids, pull))


def _put_scaled_candidates(
  shard: Shard,
  columns: Array,
  chunk: ChunkStats,
  tokens: Array,
  candidates: tuple[Array, Array],
  scale: Array,
) -> tuple[Array, Array]:
  """Columns exp(z - largest) with e c / scale added, and the scale: rows.

  So the K columns need no pass over the others. A scale of 0, where the parts
  of the slope cancel, is replaced by one that makes nothing of the others.
  """
  ids, pull = candidates
  pulled = jnp.any(pull != 0, axis=1)
  small = pulled & (jnp.abs(scale) < _LEAST_SCALE)
  scale = jnp.where(small, _LEAST_SCALE, scale)
  added = pull / jnp.where(pulled, scale, 1.0)[:, None]
  log_pi: Any = chunk.stats.top_log_probs
  value = jnp.exp(log_pi + chunk.log_sum[:, None]) + added
  return _set_candidates(shard, columns, ids, tokens, value), scale


def _put_candidates(
  shard: Shard,
  gradient: Array,
  chunk: ChunkStats,
  tokens: Array,
  candidates: tuple[Array, Array],
  falling: Array,
  h: Array | None,
) -> Array:
  """The gradient with the K columns of the candidates, each computed in f32."""
  ids, pull = candidates
  log_pi: Any = chunk.stats.top_log_probs
  value = pull - falling[:, None] * jnp.exp(log_pi)
  if h is not None and chunk.mean_below is not None:
    entropy = chunk.log_sum - chunk.mean_below
    value -= h[:, None] * jnp.exp(log_pi) * (log_pi + entropy[:, None])
  return _set_candidates(shard, gradient, ids, tokens, value)


def _set_candidates(
  shard: Shard, columns: Array, ids: Array, tokens: Array, values: Array
) -> Array:
  """Columns [C, width] with values [C, K] at ids, but for the token itself."""
  column, here = shard.local(ids)
  here &= ids != tokens[:, None]
  column = jnp.where(here, column, shard.width)
  rows = jnp.arange(tokens.shape[0])[:, None]
  return columns.at[rows, column].set(values.astype(columns.dtype), mode='drop')
