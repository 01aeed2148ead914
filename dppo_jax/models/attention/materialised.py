"""Attention that holds all scores: the reference, and best where they are few.

A decode step, or sequences of some hundred tokens.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dppo_jax.base import Array
from dppo_jax.models.attention.sources import (
  HIDDEN_SCORE,
  LEAST_SCORE,
  KeySource,
  visible,
)
from dppo_jax.ops import products


def attend(query: Array, sources: Sequence[KeySource]) -> Array:
  """softmax(q k / sqrt(head_dim)) v over all sources together.

  Args:
    query: [B, Q, H, head_dim].
    sources: what it sees.

  Returns:
    [B, Q, H, head_dim]. Scores and softmax are f32; zeros where a query sees
    no key.
  """
  scores = jnp.concatenate([_scores(query, s) for s in sources], axis=-1)
  weights = _softmax(scores).astype(query.dtype)
  # Summed before they are cast: each source holds a part of the weights.
  mixed = jnp.zeros(query.shape, jnp.float32)
  begin = 0
  for source in sources:
    end = begin + source.keys.shape[2]
    mixed = mixed + _weighted(weights[..., begin:end], source)
    begin = end
  return mixed.astype(query.dtype)


@jax.custom_jvp
def _softmax(scores: Array) -> Array:
  """Softmax over the last axis; zeros where every score is hidden."""
  most = jnp.max(scores, axis=-1, keepdims=True)
  # Above the hidden ones, whose exponentials are then 0.
  weights = jnp.exp(scores - jnp.maximum(most, LEAST_SCORE))
  total = jnp.sum(weights, axis=-1, keepdims=True)
  return weights / jnp.where(total == 0.0, 1.0, total)


@_softmax.defjvp
def _softmax_jvp(
  primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
  weights = _softmax(*primals)
  (change,) = tangents
  mean = jnp.sum(weights * change, axis=-1, keepdims=True)
  return weights, weights * (change - mean)


def _scores(query: Array, source: KeySource) -> Array:
  """Masked scores f32 [B, kv_heads, H / kv_heads, Q, S]."""
  rows, width, heads, head_dim = query.shape
  entries, kv_heads, size, _ = source.keys.shape
  share, repeat = rows // entries, heads // kv_heads
  query = query.reshape(entries, share, width, kv_heads, repeat, head_dim)
  scores = products.einsum_f32(
    'bgqkrd,bksd->bgkrqs', query * head_dim**-0.5, source.keys
  )
  mask = visible(source, rows, width)[:, :, None, None]
  scores = jnp.where(mask, scores, HIDDEN_SCORE)
  return scores.reshape(rows, kv_heads, repeat, width, size)


def _weighted(weights: Array, source: KeySource) -> Array:
  """Sum of values by weight: f32 [B, Q, H, head_dim]."""
  rows, kv_heads, repeat, width, size = weights.shape
  entries, _, _, head_dim = source.values.shape
  weights = weights.reshape(
    entries, rows // entries, kv_heads, repeat, width, size
  )
  # In the order of a product; in that of the result XLA would turn the values.
  mixed = products.einsum_f32('bgkrqs,bksd->bkgrqd', weights, source.values)
  mixed = jnp.transpose(mixed, (0, 2, 4, 1, 3, 5))
  return mixed.reshape(rows, width, kv_heads * repeat, head_dim)
