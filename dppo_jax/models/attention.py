"""Grouped-query attention over segments of keys.

A query sees one or several segments: its own sequence, a cache, or the keys of
a prompt that the completions of a group share. Training, prefill and decoding
are the same function with other segments.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dppo_jax.base import Array
from dppo_jax.models import layers
from dppo_jax.ops import products

# Finite, so that a row which sees no key (padding) gets a mean, not NaN.
HIDDEN_SCORE = -1e30


class Segment(NamedTuple):
  """Keys and values that a block of queries may see.

  Attributes:
    keys: [B', kv_heads, S, head_dim], as products read them; B' divides the
      number of query rows, and consecutive rows share one entry.
    values: as `keys`.
    mask: bool [1 or B', 1 or Q, S], True where a query may look.
  """

  keys: Array
  values: Array
  mask: Array


def attend(query: Array, segments: Sequence[Segment]) -> Array:
  """softmax(q k / sqrt(head_dim)) v over all segments together.

  Args:
    query: [B, Q, H, head_dim].
    segments: what it sees.

  Returns:
    [B, Q, H, head_dim]. Scores and softmax are f32.
  """
  scores = jnp.concatenate([_scores(query, s) for s in segments], axis=-1)
  weights = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
  # Summed before they are cast: each segment holds a part of the weights.
  mixed = jnp.zeros(query.shape, jnp.float32)
  begin = 0
  for segment in segments:
    end = begin + segment.keys.shape[2]
    mixed = mixed + _weighted(weights[..., begin:end], segment)
    begin = end
  return mixed.astype(query.dtype)


def _scores(query: Array, segment: Segment) -> Array:
  """Masked scores f32 [B, kv_heads, H / kv_heads, Q, S]."""
  rows, width, heads, head_dim = query.shape
  entries, kv_heads, size, _ = segment.keys.shape
  share, repeat = rows // entries, heads // kv_heads
  query = query.reshape(entries, share, width, kv_heads, repeat, head_dim)
  scores = products.einsum_f32(
    'bgqkrd,bksd->bgkrqs', query * head_dim**-0.5, segment.keys
  )
  mask = segment.mask[:, None, None, None]
  scores = jnp.where(mask, scores, HIDDEN_SCORE)
  return scores.reshape(rows, kv_heads, repeat, width, size)


def _weighted(weights: Array, segment: Segment) -> Array:
  """Sum of values by weight: f32 [B, Q, H, head_dim]."""
  rows, kv_heads, repeat, width, size = weights.shape
  entries, _, _, head_dim = segment.values.shape
  weights = weights.reshape(
    entries, rows // entries, kv_heads, repeat, width, size
  )
  # In the order of a product; in that of the result XLA would turn the values.
  mixed = products.einsum_f32('bgkrqs,bksd->bkgrqd', weights, segment.values)
  mixed = jnp.transpose(mixed, (0, 2, 4, 1, 3, 5))
  return mixed.reshape(rows, width, kv_heads * repeat, head_dim)


class Attention(nn.Module):
  """Projections around `attend`."""

  config: layers.TransformerConfig

  def setup(self) -> None:
    c = self.config
    embed = (c.d_model, 'embed')
    heads, head = (c.num_heads, 'heads'), (c.head_dim, 'head_dim')
    kv_heads = (c.num_kv_heads, 'kv_heads')

    def project(axes: list[tuple[int, str]]) -> layers.Projection:
      return layers.Projection(c, [embed], axes, use_bias=c.qkv_bias)

    self.query = project([heads, head])
    self.key = project([kv_heads, head])
    self.value = project([kv_heads, head])
    self.output = layers.Projection(c, [heads, head], [embed])
    if c.qk_norm:
      self.query_norm = layers.RMSNorm(c)
      self.key_norm = layers.RMSNorm(c)

  def project(self, x: Array, angles: Array) -> tuple[Array, Array, Array]:
    """[B, S, D] to rotated queries, rotated keys, values.

    Queries are [B, S, H, head_dim], the others [B, kv_heads, S, head_dim].
    """
    into = (self.query, self.key, self.value)
    query, key, value = layers.project_all(self, into, x)
    if self.config.qk_norm:
      query, key = self.query_norm(query), self.key_norm(key)
    query = layers.rotate(query, angles)
    key = layers.rotate(key, angles)
    return query, jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)

  def __call__(
    self, x: Array, angles: Array, seen: Sequence[Segment], own_mask: Array
  ) -> tuple[Array, tuple[Array, Array]]:
    """Attends to what was `seen` before and to `x` itself.

    Args:
      x: [B, S, D].
      angles: f32 [B, S, head_dim / 2].
      seen: segments before `x`.
      own_mask: bool [1 or B, S, S].

    Returns:
      [B, S, D], and the keys and values of `x`.
    """
    query, key, value = self.project(x, angles)
    mixed = attend(query, [*seen, Segment(key, value, own_mask)])
    return self.output(mixed), (key, value)
