"""Which rows of a batch this host reads, and how the hosts share findings.

Rows of a global array live on devices of several processes, and a process can
read only its own. What it reads keeps the shape of the whole: rows of others
are zero and cost no memory, since nobody writes to them. Each row is read by
one process, so that a sum over the processes is the whole.
"""

from collections.abc import Callable, Sequence
import json
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
import numpy as np

from dppo_jax.runtime.hosts import coordination


def put(sharding: NamedSharding, tree: Any) -> Any:
  """Makes global arrays of values that every process has whole.

  With one process it returns the tree: whoever is compiled for it places it.

  Args:
    sharding: of every leaf.
    tree: arrays, equal on all processes.
  """
  if coordination.is_single_process():
    return tree

  def place(leaf: Any) -> jax.Array:
    values = np.asarray(leaf)
    return jax.make_array_from_process_local_data(
      sharding, values, values.shape
    )

  return jax.tree.map(place, tree)


def put_rows(
  sharding: NamedSharding,
  read: Callable[[np.ndarray | None], Any],
  num_rows: int,
) -> Any:
  """Makes global arrays of rows that every process reads for itself.

  Args:
    sharding: of every leaf, over its rows.
    read: row numbers -> a tree of those rows; None is all rows.
    num_rows: of all processes.
  """
  if coordination.is_single_process():
    return read(None)
  held = held_rows(sharding, num_rows)
  return jax.tree.map(
    lambda leaf: jax.make_array_from_process_local_data(
      sharding, np.asarray(leaf), (num_rows, *leaf.shape[1:])
    ),
    read(held),
  )


def held_rows(sharding: NamedSharding, num_rows: int) -> np.ndarray:
  """Rows on the devices of this process, i64, ascending."""
  places = sharding.addressable_devices_indices_map((num_rows,))
  return _rows(list(places.values()), num_rows)


def own_rows(sharding: NamedSharding, num_rows: int) -> np.ndarray | None:
  """Rows this process reads for all, i64, ascending; None for all rows.

  Of several processes that hold a row it is the first.
  """
  if coordination.is_single_process():
    return None
  places = sharding.devices_indices_map((num_rows,))
  owner = np.full(num_rows, jax.process_count())
  for device, index in places.items():
    rows = _rows([index], num_rows)
    owner[rows] = np.minimum(owner[rows], device.process_index)
  return np.flatnonzero(owner == jax.process_index())


def _rows(places: Sequence[Any], num_rows: int) -> np.ndarray:
  numbers = [np.arange(num_rows)[index] for index in places]
  return np.unique(np.concatenate(numbers))


def read(sharding: NamedSharding, tree: Any) -> Any:
  """Reads a batch: own rows, and vectors whole.

  Args:
    sharding: of every leaf, over its rows.
    tree: global arrays [B, ...].

  Returns:
    NumPy arrays [B, ...]. Leaves of rank 1 are whole; of others the rows of
    other processes are zero.
  """
  if coordination.is_single_process():
    return jax.device_get(tree)

  def fetch(leaf: jax.Array) -> np.ndarray:
    if leaf.ndim == 1:
      return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    own = own_rows(sharding, leaf.shape[0])
    mine = np.zeros(leaf.shape[0], bool)
    mine[own] = True
    values = np.zeros(leaf.shape, leaf.dtype)
    for shard in leaf.addressable_shards:
      rows = np.arange(leaf.shape[0])[shard.index[0]]
      if mine[rows].any():
        values[(rows, *shard.index[1:])] = np.asarray(shard.data)
    return values

  return jax.tree.map(fetch, tree)


def fetch(tree: Any) -> Any:
  """Reads global arrays whole, on every process; a collective."""
  if coordination.is_single_process():
    return jax.device_get(tree)
  return jax.tree.map(
    lambda leaf: np.asarray(
      multihost_utils.process_allgather(leaf, tiled=True)
    ),
    tree,
  )


def total(tree: Any) -> Any:
  """Sums arrays over the processes, in their dtype; a collective."""
  if coordination.is_single_process():
    return tree

  def add(leaf: Any) -> np.ndarray:
    values = np.asarray(leaf)
    parts = np.asarray(multihost_utils.process_allgather(values))
    return parts.sum(axis=0, dtype=values.dtype)

  return jax.tree.map(add, tree)


def share(mine: Sequence[Any], rows: np.ndarray | None, count: int) -> list:
  """Values of all rows, each found by the process that owns the row.

  Args:
    mine: one entry a row of `rows`, as JSON can hold it.
    rows: of `own_rows`.
    count: B, rows of all processes.

  Returns:
    B entries, in order; None for a row that no process spoke of.
  """
  if rows is None:
    return list(mine)
  text = json.dumps([rows.tolist(), list(mine)])
  whole: list[Any] = [None] * count
  for part in coordination.gather(text.encode()):
    numbers, entries = json.loads(part)
    for number, entry in zip(numbers, entries, strict=True):
      whole[number] = entry
  return whole
