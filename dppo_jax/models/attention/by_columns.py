"""Attention whose queries are laid over a mesh by columns: context parallelism.

A device keeps the queries of its own columns, of all heads, and gathers the
keys and values of every other. Not a ring: with grouped heads keys and values
are a fraction of the queries, so that a layer's whole are small beside the
activations; one collective can overlap with the products before it; and the
call is one of any implementation, whose segments hide what a ring would merge
by hand. Llama 3 is trained so, too (arXiv:2407.21783, section 3.3.2).
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from dppo_jax import parallel
from dppo_jax.base import Array
from dppo_jax.models.attention.sources import KeySource

Attend = Callable[[Array, Sequence[KeySource]], Array]


def splits(
  mesh: Mesh | None, query: Array, sources: Sequence[KeySource]
) -> bool:
  """Whether every device gets as many rows, entries and columns."""
  if mesh is None or mesh.shape[parallel.SEQUENCE_AXIS] == 1:
    return False
  shards = parallel.num_batch_shards(mesh)
  parts = mesh.shape[parallel.SEQUENCE_AXIS]
  return (
    query.shape[0] % shards == 0
    and query.shape[1] % parts == 0
    and all(s.shape[0] % shards == 0 for s in sources)
    and all(s.shape[2] % parts == 0 for s in sources)
  )


def attend(
  mesh: Mesh, run: Attend, query: Array, sources: Sequence[KeySource]
) -> Array:
  """`run` on the rows and columns of each device.

  The last columns see the most keys: where an implementation skips hidden
  blocks, their device sets the time, twice the mean over the devices.

  Args:
    mesh: devices, which `splits` found to divide rows and columns.
    run: attention of a device.
    query: [B, Q, H, head_dim].
    sources: what it sees.
  """
  rows, columns = parallel.BATCH_AXES, parallel.SEQUENCE_AXIS
  of_query = PartitionSpec(rows, columns)
  # Specifications stand in the places of arrays.
  of_keys: Any = PartitionSpec(rows, None, columns)

  def of_ids(ids: Array, axis: str | None) -> Any:
    by_rows, by_columns = ids.shape[0] > 1, ids.shape[1] > 1
    return PartitionSpec(
      rows if by_rows else None, axis if by_columns else None
    )

  specs = [
    KeySource(
      keys=of_keys,
      values=of_keys,
      key_segments=of_ids(source.key_segments, None),
      query_segments=of_ids(source.query_segments, columns),
      is_causal=source.is_causal,
    )
    for source in sources
  ]

  def attend_own(query: Array, sources: list[KeySource]) -> Array:
    seen = [part for source in sources for part in _gathered(source)]
    return run(query, seen)

  return jax.shard_map(
    attend_own,
    mesh=mesh,
    in_specs=(of_query, specs),
    out_specs=of_query,
    check_vma=False,  # Of loops inside it cannot know what differs.
  )(query, list(sources))


def _gathered(source: KeySource) -> list[KeySource]:
  """What the queries of a device see of a source.

  Of a causal one that is its own columns, causally, and those before them.
  """
  axis = parallel.SEQUENCE_AXIS
  keys, values = (
    jax.lax.all_gather(x, axis, axis=2, tiled=True)
    for x in (source.keys, source.values)
  )
  ids = source.key_segments
  if not source.is_causal:
    return [dataclasses.replace(source, keys=keys, values=values)]
  width = source.keys.shape[2]
  first = jax.lax.axis_index(axis) * width
  ids = jnp.broadcast_to(ids, (ids.shape[0], keys.shape[2]))
  before = jnp.where(jnp.arange(keys.shape[2]) < first, ids, 0)
  own = jax.lax.dynamic_slice_in_dim(ids, first, width, axis=1)
  return [
    dataclasses.replace(
      source, keys=keys, values=values, key_segments=before, is_causal=False
    ),
    dataclasses.replace(source, key_segments=own),
  ]
