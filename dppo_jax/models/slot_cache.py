"""Decoding in slots: every row is at a token of its own, with its own prompt.

The cache of a slot holds the prompt of its row and what the row has run. A row
writes column r as its token r, so it computes the same whenever it began and
whatever stands in the other slots. Slots of a shard are filled by that shard:
arrays are viewed as [shards, slots a shard], and nothing crosses.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dppo_jax import parallel
from dppo_jax.base import Array

# Keys and values as in `policy.Cache`: a tree of arrays.
KeyValues = Any

# Axes of rows and columns in its leaves, which may begin with one of layers.
_ROWS, _COLUMNS = -4, -2


@flax.struct.dataclass(kw_only=True)
class SlotCache:
  """Keys and values of the rows in S slots.

  Attributes:
    prompt: of N = S prompts.
    prompt_mask: bool [S, P].
    completion: of B = S completions.
  """

  prompt: KeyValues
  prompt_mask: Array
  completion: KeyValues


class Slots(NamedTuple):
  """Pure functions over a cache of S slots, S / D of them on each of D shards.

  Attributes:
    empty: (prompt, S, R) -> the cache of free slots, for prompts of that shape;
      of theirs only shapes are read.
    fill: (cache, prompt, prompt_mask, slots i32 [D, F]) -> the cache with F
      rows of each shard in its slots; S / D stands for nowhere. Prompts are
      D·M of a `Cache`, and each of them goes into F / M slots that adjoin.
    decode: (weights, cache, tokens i32 [S], steps i32 [S]) -> hidden after the
      tokens, the cache, and their experts, unsigned [S, M, k], or None in a
      dense model. A token is number `steps` of its row's completion.
  """

  empty: Callable[[KeyValues, int, int], SlotCache]
  fill: Callable[[SlotCache, KeyValues, Array, Array], SlotCache]
  decode: Callable[
    [Any, SlotCache, Array, Array], tuple[Array, SlotCache, Array | None]
  ]


def make_slots(mesh: Mesh | None, run_token: Callable[..., Any]) -> Slots:
  """Functions over slots whose rows are laid over a mesh.

  Args:
    mesh: of the rows; None is one device.
    run_token: (weights, cache, tokens i32 [S], positions i32 [S, 1], numbers of
      columns that are written i32 [S], write) -> hidden [S, D], the keys and
      values of the completions with those of the tokens, which `write(old,
      new)` puts there, and their experts or None.
  """
  shards = 1 if mesh is None else parallel.num_batch_shards(mesh)
  return Slots(
    empty=functools.partial(_empty, mesh),
    fill=functools.partial(_fill, shards),
    decode=functools.partial(_decode, shards, run_token),
  )


def _empty(
  mesh: Mesh | None, prompt: KeyValues, num_slots: int, num_columns: int
) -> SlotCache:
  def zeros(like: Any, columns: int) -> Array:
    shape = list(like.shape)
    shape[_ROWS], shape[_COLUMNS] = num_slots, columns
    return _split_rows(mesh, jnp.zeros(shape, like.dtype))

  num_prompt = jax.tree.leaves(prompt)[0].shape[_COLUMNS]
  return SlotCache(
    prompt=jax.tree.map(lambda x: zeros(x, num_prompt), prompt),
    prompt_mask=jnp.zeros((num_slots, num_prompt), bool),
    completion=jax.tree.map(lambda x: zeros(x, num_columns), prompt),
  )


def _fill(
  shards: int,
  cache: SlotCache,
  prompt: KeyValues,
  prompt_mask: Array,
  slots: Array,
) -> SlotCache:
  def put(old: Array, new: Array, axis: int) -> Array:
    axis %= old.ndim
    new = jnp.repeat(new, slots.size // new.shape[axis], axis=axis)
    return _by_shard(shards, axis, _put(axis), old, new, slots)

  def clear(old: Array) -> Array:
    # What a row left behind is masked, but 0 times infinity is not 0.
    shape = list(old.shape)
    shape[_ROWS] = slots.size
    return put(old, jnp.zeros(shape, old.dtype), _ROWS)

  def put_rows(old: Array, new: Array) -> Array:
    return put(old, new.astype(old.dtype), _ROWS)

  return SlotCache(
    prompt=jax.tree.map(put_rows, cache.prompt, prompt),
    prompt_mask=put(cache.prompt_mask, prompt_mask, 0),
    completion=jax.tree.map(clear, cache.completion),
  )


def _decode(
  shards: int,
  run_token: Callable[..., Any],
  weights: Any,
  cache: SlotCache,
  tokens: Array,
  steps: Array,
) -> tuple[Array, SlotCache, Array | None]:
  lengths = jnp.sum(cache.prompt_mask, axis=1, dtype=jnp.int32)
  columns = steps.reshape(shards, -1)

  def write(old: Array, new: Array) -> Array:
    axis, new = old.ndim + _ROWS, new.astype(old.dtype)
    return _by_shard(shards, axis, _write_column, old, new, columns)

  hidden, completion, routes = run_token(
    weights, cache, tokens, (lengths + steps)[:, None], steps, write
  )
  return hidden, dataclasses.replace(cache, completion=completion), routes


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
  """old[…, i, :, columns[i], :] = new[…, i, :, 0, :] for every row i."""
  new = jnp.moveaxis(jnp.squeeze(new, _COLUMNS), _ROWS + 1, 0)
  at = (..., jnp.arange(len(columns)), slice(None), columns, slice(None))
  return old.at[at].set(new, unique_indices=True)


def _split_rows(mesh: Mesh | None, x: Array) -> Array:
  """Rows over the batch axes; of heads the compiler decides."""
  if mesh is None or mesh.size == 1:
    return x
  free = PartitionSpec.UNCONSTRAINED
  spec = PartitionSpec(
    *[None] * (x.ndim + _ROWS), parallel.BATCH_AXES, *[free] * (-_ROWS - 1)
  )
  return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))
