"""Keys that queries may see, and the rule of who sees what."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from dppo_jax.base import Array

# The score of a hidden key, finite so that a row of nothing else is no NaN; and
# one below those of all visible keys.
HIDDEN_SCORE, LEAST_SCORE = -1e30, -1e29


@flax.struct.dataclass
class KeySource:
  """Keys and values that a block of queries may see.

  Query (b, i) sees key (e, j), e = b // (B / E), where
  query_segments[b, i] == key_segments[e, j] != 0, and j <= i if `is_causal`.

  Attributes:
    keys: [E, kv_heads, S, head_dim], as products read them; E divides the
      number B of query rows, and consecutive rows share one entry.
    values: as `keys`.
    key_segments: i32 [1 or E, S], segment of each key, from 1; 0 hides it.
    query_segments: i32 [1 or B, 1 or Q], segment that each query sees of this
      source; 0 sees none.
    is_causal: columns of the keys are those of the queries, later ones hidden.
    layer: i32 [], which of keys and values [L, E, …] of all layers; None where
      they have no such axis. To take a layer out of a cache would copy it.
  """

  keys: Array
  values: Array
  key_segments: Array
  query_segments: Array
  is_causal: bool = flax.struct.field(pytree_node=False)
  layer: Array | None = None

  @property
  def shape(self) -> tuple[int, ...]:
    """(E, kv_heads, S, head_dim)."""
    return self.keys.shape[-4:]

  def of_one_layer(self) -> 'KeySource':
    """The source without an axis of layers."""
    if self.layer is None:
      return self
    keys, values = (
      jax.lax.dynamic_index_in_dim(x, self.layer, keepdims=False)
      for x in (self.keys, self.values)
    )
    return dataclasses.replace(self, keys=keys, values=values, layer=None)


def visible(source: KeySource, num_rows: int, width: int) -> Array:
  """Who sees what: bool [1 or E, 1 or B / E, 1 or Q, S].

  Args:
    source: the keys.
    num_rows: B.
    width: Q.
  """
  entries, size = source.keys.shape[0], source.keys.shape[2]
  seen, sought = source.key_segments, source.query_segments
  rows, columns = sought.shape
  if rows > 1:
    sought = sought.reshape(entries, num_rows // entries, columns)
  else:
    sought = sought[:, None]
  mask = sees(sought[..., None], seen[:, None, None])
  if source.is_causal:
    mask &= jnp.tril(jnp.ones((1, 1, width, size), bool))
  return mask


def sees(query_segments: Array, key_segments: Array) -> Array:
  """Whether segments match, ids broadcast against each other: bool."""
  shape = jnp.broadcast_shapes(query_segments.shape, key_segments.shape)
  sought = jnp.broadcast_to(query_segments, shape)
  seen = jnp.broadcast_to(key_segments, shape)
  return (sought == seen) & (seen != 0)
