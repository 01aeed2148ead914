"""Projections around attention: what a layer of the transformer calls."""

from collections.abc import Callable, Sequence
import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import Mesh

from dppo_jax import parallel
from dppo_jax.base import Array
from dppo_jax.models import layers
from dppo_jax.models.attention import dispatch
from dppo_jax.models.attention.sources import KeySource


class Attention(nn.Module):
  """Projections around `dispatch.attend`.

  Attributes:
    mesh: what rows and heads are laid over; None is one device.
  """

  config: layers.TransformerConfig
  mesh: Mesh | None = None

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

  @property
  def _by_columns(self) -> bool:
    return self.config.shard_attention == 'columns' and self.mesh is not None

  def project(self, x: Array, rotary: Array) -> tuple[Array, Array, Array]:
    """[B, S, D] to rotated queries, rotated keys, values.

    Queries are [B, S, H, head_dim], the others [B, kv_heads, S, head_dim].
    """
    into = (self.query, self.key, self.value)
    query, key, value = layers.project_all(self, into, x)
    if self._by_columns and x.shape[1] > 1:
      query, key, value = (
        parallel.constrain_rows(self.mesh, y, columns=True)
        for y in (query, key, value)
      )
    if self.config.qk_norm:
      query, key = self.query_norm(query), self.key_norm(key)
    query = layers.rotate(query, rotary)
    key = layers.rotate(key, rotary)
    return query, jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)

  def __call__(
    self,
    x: Array,
    rotary: Array,
    seen: Sequence[KeySource],
    segments: Array,
    write: Callable[[Array, Array], Array] | None = None,
  ) -> tuple[Array, tuple[Array, Array]]:
    """Attends to what was `seen` before and to `x` itself, causally.

    Args:
      x: [B, S, D].
      rotary: f32 [B, S, 2, head_dim / 2], of `layers.rotary_factors`.
      seen: sources before `x`.
      segments: i32 [1 or B, S], of each token; 0 is padding.
      write: (keys or values of the last source, those of `x`) -> the former
        with the latter in columns that the source shows. Then the keys of `x`
        are no source of their own. None writes nothing.

    Returns:
      [B, S, D], and the keys and values of `x`, or of the last source with
      those of `x` written.
    """
    query, key, value = self.project(x, rotary)
    if write is None:
      last = KeySource(key, value, segments, segments, is_causal=True)
    else:
      *seen, cache = seen
      key, value = write(cache.keys, key), write(cache.values, value)
      last = dataclasses.replace(cache, keys=key, values=value)
    mixed = dispatch.attend(
      query,
      [*seen, last],
      self.config.attention,
      self.mesh,
      columns=self._by_columns,
    )
    if self.config.shard_sequence and not self._by_columns and x.shape[1] > 1:
      # Or a device multiplies all heads in the backward pass.
      mixed = parallel.constrain_heads(self.mesh, mixed)
    return self.output(mixed), (key, value)
