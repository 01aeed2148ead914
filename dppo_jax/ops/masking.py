"""Reductions over the tokens that count."""

import chex
import jax.numpy as jnp

from dppo_jax.base import Array


def masked_sum(values: Array, mask: Array) -> Array:
  """Sum of `values` where `mask`; what stands elsewhere cannot leak, not NaN.

  Args:
    values: float, any shape.
    mask: bool, the same shape.

  Returns:
    f32 [].
  """
  chex.assert_equal_shape([values, mask])
  return jnp.sum(jnp.where(mask, values.astype(jnp.float32), 0.0))


def masked_mean(values: Array, mask: Array) -> Array:
  """Mean of `values` where `mask`, 0.0 where nothing counts; f32 [].

  >>> float(masked_mean(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([1, 1, 0])))
  2.0
  """
  mask = mask.astype(bool)
  return masked_sum(values, mask) / jnp.maximum(jnp.sum(mask), 1)


def masked_max(values: Array, mask: Array) -> Array:
  """Largest of `values` where `mask`, 0.0 where nothing counts; f32 []."""
  chex.assert_equal_shape([values, mask])
  values = values.astype(jnp.float32)
  largest = jnp.max(values, where=mask, initial=-jnp.inf)
  return jnp.where(jnp.any(mask), largest, 0.0)


def masked_min(values: Array, mask: Array) -> Array:
  """Smallest of `values` where `mask`, 0.0 where nothing counts; f32 []."""
  return -masked_max(-values, mask)


def row_mean(values: Array, mask: Array) -> Array:
  """Mean of each row over the tokens that count: [B, T] -> f32 [B]."""
  chex.assert_equal_shape([values, mask])
  kept = jnp.where(mask, values.astype(jnp.float32), 0.0)
  total = jnp.sum(kept, axis=1)
  return total / jnp.maximum(jnp.sum(mask, axis=1), 1)


def row_max(values: Array, mask: Array) -> Array:
  """Largest of each row over the tokens that count: [B, T] -> f32 [B].

  A row without tokens has 0.0.
  """
  chex.assert_equal_shape([values, mask])
  values = values.astype(jnp.float32)
  largest = jnp.max(values, axis=1, where=mask, initial=-jnp.inf)
  return jnp.where(jnp.any(mask, axis=1), largest, 0.0)


def masked_quantile(values: Array, mask: Array, quantile: float) -> Array:
  """Quantile of each row over the tokens that count, interpolated linearly.

  Args:
    values: f32 [B, T].
    mask: bool [B, T].
    quantile: in [0, 1].

  Returns:
    f32 [B], 0.0 for a row without tokens.

  >>> row = jnp.array([[3.0, 1.0, 2.0, 99.0]])
  >>> masked_quantile(row, jnp.array([[1, 1, 1, 0]], bool), 0.75).tolist()
  [2.5]
  """
  chex.assert_rank([values, mask], 2)
  ordered = jnp.sort(jnp.where(mask, values, jnp.inf), axis=1)
  count = jnp.sum(mask, axis=1, keepdims=True)
  place = quantile * jnp.maximum(count - 1, 0)
  low = jnp.floor(place).astype(jnp.int32)
  high = jnp.minimum(low + 1, jnp.maximum(count - 1, 0))
  below = jnp.take_along_axis(ordered, low, axis=1)
  above = jnp.take_along_axis(ordered, high, axis=1)
  found = below + (place - low) * (above - below)
  return jnp.where(count > 0, found, 0.0)[:, 0]


def _token_mean(mask: Array, length_norm: float) -> Array:
  del length_norm
  return mask / jnp.maximum(jnp.sum(mask), 1.0)


def _sequence_mean_token_mean(mask: Array, length_norm: float) -> Array:
  del length_norm
  lengths = jnp.sum(mask, axis=1, keepdims=True)
  return mask / jnp.maximum(lengths, 1.0) / _num_sequences(mask)


def _sequence_mean_token_sum(mask: Array, length_norm: float) -> Array:
  del length_norm
  return mask / _num_sequences(mask)


def _sequence_mean_token_sum_norm(mask: Array, length_norm: float) -> Array:
  return mask / _num_sequences(mask) / length_norm


def _num_sequences(mask: Array) -> Array:
  """Sequences with at least one completion token, at least 1; f32 []."""
  nonempty = jnp.any(mask > 0, axis=1).astype(jnp.float32)
  return jnp.maximum(jnp.sum(nonempty), 1.0)


AGGREGATIONS = {
  'token_mean': _token_mean,
  'sequence_mean_token_mean': _sequence_mean_token_mean,
  'sequence_mean_token_sum': _sequence_mean_token_sum,
  'sequence_mean_token_sum_norm': _sequence_mean_token_sum_norm,
}


def aggregation_weights(
  mask: Array, aggregation: str, length_norm: float
) -> Array:
  """Weight of each token in the loss: `loss = sum(weights * per_token)`.

  The weights are computed once from the mask of the *whole* batch of an
  update. However the batch is then split over devices or microbatches, the
  parts add up to the same loss and the same gradient. They know the completion
  mask only: a token that the trust region drops still counts as a token.

  Args:
    mask: bool [B, T], the completion tokens.
    aggregation: a key of `AGGREGATIONS`.
    length_norm: divisor of `sequence_mean_token_sum_norm`, tokens.

  Returns:
    f32 [B, T], 0.0 where masked.

  >>> mask = jnp.array([[1, 1, 1], [1, 0, 0]], bool)
  >>> weights = aggregation_weights(mask, 'sequence_mean_token_mean', 1.0)
  >>> [[round(float(w), 3) for w in row] for row in weights]
  [[0.167, 0.167, 0.167], [0.5, 0.0, 0.0]]
  """
  chex.assert_rank(mask, 2)
  weights = AGGREGATIONS[aggregation]
  return weights(mask.astype(jnp.float32), length_norm)
