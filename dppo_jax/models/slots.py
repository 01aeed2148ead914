"""Decoding in slots: every row is at a token of its own, with its own prompt.

The cache of a slot holds the prompt of its row and what the row has run. A row
writes column r as its token r, so it computes the same whenever it began and
whatever stands in the other slots. Slots of a shard are filled by that shard:
arrays are viewed as [shards, slots a shard], and nothing crosses.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dppo_jax import parallel
from dppo_jax.base import Array, Params
from dppo_jax.models import moe
from dppo_jax.models.layers import TransformerConfig

KeyValues = tuple[Array, Array]

# Axis of the rows in keys and values.
_ROWS = 1


@flax.struct.dataclass(kw_only=True)
class SlotCache:
  """Keys and values of the rows in S slots.

  Attributes:
    prompt: (keys, values), each [L, S, P, kv_heads, head_dim].
    prompt_mask: bool [S, P].
    completion: (keys, values), each [L, S, R, kv_heads, head_dim].
  """

  prompt: KeyValues
  prompt_mask: Array
  completion: KeyValues


class Slots(NamedTuple):
  """Pure functions over a cache of S slots, S / D of them on each of D shards.

  Attributes:
    empty: (S, P, R) -> the cache of free slots.
    fill: (cache, prompt, prompt_mask, slots i32 [D, F]) -> the cache with F
      rows of each shard in its slots; S / D stands for nowhere. Prompts are
      D·M of a `Cache`, and each of them goes into F / M slots that adjoin.
    decode: (params, cache, tokens i32 [S], steps i32 [S]) -> hidden after the
      tokens, the cache, and their experts, unsigned [S, M, k], or None in a
      dense model. A token is number `steps` of its row's completion.
  """

  empty: Callable[[int, int, int], SlotCache]
  fill: Callable[[SlotCache, KeyValues, Array, Array], SlotCache]
  decode: Callable[
    [Params, SlotCache, Array, Array], tuple[Array, SlotCache, Array | None]
  ]


def make_slots(
  config: TransformerConfig, mesh: Mesh | None, run: Callable[..., Any]
) -> Slots:
  """Builds the functions.

  Args:
    config: shape of the transformer.
    mesh: what rows are laid over; None is one device.
    run: (params, *args of `Transformer.__call__`) -> what that returns.
  """
  shards = 1 if mesh is None else parallel.num_batch_shards(mesh)

  def empty(num_slots: int, num_prompt: int, num_columns: int) -> SlotCache:
    def zeros(columns: int) -> Array:
      shape = (config.num_layers, num_slots, columns)
      shape += (config.num_kv_heads, config.head_dim)
      return _split_rows(mesh, jnp.zeros(shape, config.dtype))

    return SlotCache(
      prompt=(zeros(num_prompt), zeros(num_prompt)),
      prompt_mask=jnp.zeros((num_slots, num_prompt), bool),
      completion=(zeros(num_columns), zeros(num_columns)),
    )

  def fill(
    cache: SlotCache, prompt: KeyValues, prompt_mask: Array, slots: Array
  ) -> SlotCache:
    def put(old: Array, new: Array, axis: int) -> Array:
      new = jnp.repeat(new, slots.size // new.shape[axis], axis=axis)
      return _by_shard(shards, axis, _put(axis), old, new, slots)

    def clear(old: Array) -> Array:
      # What a row left behind is masked, but 0 times infinity is not 0.
      return put(old, jnp.zeros_like(old[:, : slots.size]), _ROWS)

    def put_rows(old: Array, new: Array) -> Array:
      return put(old, new.astype(old.dtype), _ROWS)

    return SlotCache(
      prompt=jax.tree.map(put_rows, cache.prompt, prompt),
      prompt_mask=put(cache.prompt_mask, prompt_mask, 0),
      completion=jax.tree.map(clear, cache.completion),
    )

  def decode(
    params: Params, cache: SlotCache, tokens: Array, steps: Array
  ) -> tuple[Array, SlotCache, Array | None]:
    columns = jnp.arange(cache.completion[0].shape[2])
    lengths = jnp.sum(cache.prompt_mask, axis=1, dtype=jnp.int32)
    written = columns[None] < steps[:, None]
    streams, own, routing = run(
      params,
      (tokens[:, None],),
      ((lengths + steps)[:, None],),
      (jnp.ones((1, 1, 1), bool),),
      (cache.prompt, cache.completion),
      (cache.prompt_mask[:, None, :], written[:, None, :]),
    )

    def write(old: Array, new: Array) -> Array:
      new = new[:, :, 0].astype(old.dtype)
      at = steps.reshape(shards, -1)
      return _by_shard(shards, _ROWS, _write_column, old, new, at)

    cache = dataclasses.replace(
      cache, completion=jax.tree.map(write, cache.completion, own)
    )
    routes = None
    if routing is not None:
      routes = routing.routes[0][:, 0]
      routes = routes.astype(moe.route_dtype(config.num_experts))
    return streams[0][:, 0], cache, routes

  return Slots(empty, fill, decode)


def _by_shard(
  shards: int,
  axis: int,
  update: Callable[[Array, Array, Array], Array],
  old: Array,
  new: Array,
  at: Array,
) -> Array:
  """Updates the rows of each shard, rows being `axis`, and `at` [D, …]."""

  def view(x: Array) -> Array:
    return x.reshape(*x.shape[:axis], shards, -1, *x.shape[axis + 1 :])

  updated = jax.vmap(update, (axis, axis, 0), axis)(view(old), view(new), at)
  return updated.reshape(old.shape)


def _put(axis: int) -> Callable[[Array, Array, Array], Array]:
  def put(old: Array, new: Array, rows: Array) -> Array:
    at = (slice(None),) * axis + (rows,)
    return old.at[at].set(new, mode='drop')

  return put


def _write_column(old: Array, new: Array, columns: Array) -> Array:
  """old[:, i, columns[i]] = new[:, i] for every row i."""
  rows = jnp.arange(len(columns))
  return old.at[:, rows, columns].set(new, unique_indices=True)


def _split_rows(mesh: Mesh | None, x: Array) -> Array:
  """Rows over the batch axes; of heads the compiler decides."""
  if mesh is None or mesh.size == 1:
    return x
  free = PartitionSpec.UNCONSTRAINED
  spec = PartitionSpec(None, parallel.BATCH_AXES, *[free] * (x.ndim - 2))
  return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))
