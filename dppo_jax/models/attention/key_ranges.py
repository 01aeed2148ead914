"""Which blocks of keys a block of queries sees, from their segment ids."""

from typing import NamedTuple

import jax.numpy as jnp

from dppo_jax.base import Array


class Ranges(NamedTuple):
  """Blocks of keys that a block of queries sees: i32 [chunks, query blocks].

  Attributes:
    begin: the first.
    end: one past the last; `begin` where there is none.
  """

  begin: Array
  end: Array


def key_ranges(
  seen: Array,
  sought: Array,
  rows: int,
  width: int,
  size: int,
  is_causal: bool,
) -> Ranges:
  """Blocks of keys that each block of queries may see.

  Of the ids of a block only the least and the greatest are compared: what is
  left out is never seen, and ids that rise along a row lose nothing.

  Args:
    seen: i32 [E, S], segments of the keys; 0 hides.
    sought: i32 [B, Q], segment that each query sees; 0 sees none.
    rows: of queries, computed at once.
    width: of a block of queries.
    size: of a block of keys.
    is_causal: later columns are hidden.
  """
  low, high = _extremes(sought, width)
  least, greatest = _extremes(seen, size)
  share = sought.shape[0] // seen.shape[0]
  least = jnp.repeat(least, share, axis=0)[:, None]
  greatest = jnp.repeat(greatest, share, axis=0)[:, None]
  low, high = low[..., None], high[..., None]
  shape = (*low.shape[:2], least.shape[2])
  low, high, least, greatest = (
    jnp.broadcast_to(x, shape) for x in (low, high, least, greatest)
  )
  meet = (low <= greatest) & (least <= high) & (high > 0) & (greatest > 0)
  if is_causal:
    first = jnp.arange(shape[2]) * size
    last = (jnp.arange(shape[1]) + 1) * width - 1
    meet &= (first[None] <= last[:, None])[None]
  meet = jnp.any(meet.reshape(-1, rows, *shape[1:]), axis=1)
  begin = jnp.argmax(meet, axis=-1)
  end = shape[2] - jnp.argmax(meet[..., ::-1], axis=-1)
  end = jnp.where(jnp.any(meet, axis=-1), end, begin)
  return Ranges(begin.reshape(-1), end.reshape(-1))


def _extremes(ids: Array, size: int) -> tuple[Array, Array]:
  """Least and greatest id in each block, zeros apart: i32 [B, blocks]."""
  padding = -ids.shape[1] % size
  ids = jnp.pad(ids, ((0, 0), (0, padding)))
  ids = ids.reshape(ids.shape[0], -1, size)
  most = jnp.iinfo(jnp.int32).max
  least = jnp.min(jnp.where(ids == 0, most, ids), axis=-1)
  return least, jnp.max(ids, axis=-1)
