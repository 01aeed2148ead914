"""Attention on every device by itself: rows and heads are laid over a mesh.

Attention needs nothing of another row or head. Left to the compiler, a loop
over rows would gather them all, and one whose length depends on the rows would
ask all devices at every turn.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from dppo_jax import parallel
from dppo_jax.base import Array
from dppo_jax.models.attention.sources import KeySource

Attend = Callable[[Array, Sequence[KeySource]], Array]


def splits(
  mesh: Mesh | None, query: Array, sources: Sequence[KeySource]
) -> bool:
  """Whether every device gets as many rows, entries and heads."""
  if mesh is None:
    return False
  shards = parallel.num_batch_shards(mesh)
  heads = mesh.shape[parallel.HEAD_AXIS]
  return query.shape[0] % shards == 0 and all(
    s.shape[0] % shards == 0 and s.shape[1] % heads == 0 for s in sources
  )


def attend(
  mesh: Mesh, run: Attend, query: Array, sources: Sequence[KeySource]
) -> Array:
  """`run` on the rows and heads of each device.

  Args:
    mesh: devices, which `splits` found to divide rows and heads.
    run: attention of a device.
    query: [B, Q, H, head_dim].
    sources: what it sees.
  """
  rows, heads = parallel.BATCH_AXES, parallel.HEAD_AXIS
  # Specifications stand in the places of arrays.
  whole: Any = PartitionSpec()

  def by_heads(source: KeySource) -> Any:
    layers = () if source.layer is None else (None,)
    return PartitionSpec(*layers, rows, heads)

  def by_rows(ids: Array) -> Any:
    return PartitionSpec(rows if ids.shape[0] > 1 else None)

  of_query = PartitionSpec(rows, None, heads)
  specs = [
    KeySource(
      keys=by_heads(source),
      values=by_heads(source),
      key_segments=by_rows(source.key_segments),
      query_segments=by_rows(source.query_segments),
      is_causal=source.is_causal,
      layer=None if source.layer is None else whole,
    )
    for source in sources
  ]
  return jax.shard_map(
    run,
    mesh=mesh,
    in_specs=(of_query, specs),
    out_specs=of_query,
    check_vma=False,  # Of loops inside it cannot know what differs.
  )(query, list(sources))
