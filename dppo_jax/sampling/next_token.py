"""Token sampling from the logits of a decode step, and its stats.

Two passes over the logits give block maxima and block sums; the rest works on
those, and reads K blocks. Sampling is vocabulary-sharded: each device reads its
own columns, and only the maximum, one sum per device, each device's K
candidates and the sampled token are communicated.
"""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from dppo_jax.base import Array, TokenStats
from dppo_jax.models import cpu_bfloat16
from dppo_jax.ops.log_probs import LOWEST_LOG_PROB
from dppo_jax.parallel import VocabularyAxes
from dppo_jax.sampling import column_blocks, inverse_cdf
from dppo_jax.sampling.support import OUTSIDE, Support
from dppo_jax.sampling.top_k import top_k_of_blocks

# Blocks per partial sum on a CPU.
_PART = 8


def sample_token(
  axes: VocabularyAxes,
  logits: Array,
  uniform: Array | None,
  *,
  temperature: float,
  top_k: int,
  support: Support | None = None,
) -> tuple[Array, TokenStats]:
  """Tokens from softmax(logits / temperature), and their stats.

  Args:
    axes: mesh axes of the batch and of the vocabulary.
    logits: f32 [B, V]; -inf for tokens that a filter removed.
    uniform: f32 [B] in [0, 1), or None to take the most likely token.
    temperature: > 0.
    top_k: K <= V, log-probs to record; 0 for none.
    support: filter of that law, of at most V tokens; stats are those of the law
      that it leaves, and hold its tokens.

  Returns:
    i32 [B] and TokenStats of [B], with the entropy. The tokens do not depend on
    the sharding of the vocabulary, up to rounding of sums.
  """
  chex.assert_rank(logits, 2)
  size = logits.shape[1]
  local = functools.partial(
    _local,
    axes,
    size=size,
    temperature=temperature,
    top_k=top_k,
    support=support,
  )
  if axes.mesh.size == 1:
    return local(logits, uniform)
  missing = -size % axes.num_shards
  logits = jnp.pad(logits, ((0, 0), (0, missing)), constant_values=-jnp.inf)
  rows = PartitionSpec(axes.rows)
  return jax.shard_map(
    local,
    mesh=axes.mesh,
    in_specs=(PartitionSpec(axes.rows, axes.vocabulary), rows),
    out_specs=rows,
    check_vma=False,  # The reductions are explicit, below.
  )(logits, uniform)


def _local(
  axes: VocabularyAxes,
  logits: Array,
  uniform: Array | None,
  *,
  size: int,
  temperature: float,
  top_k: int,
  support: Support | None,
) -> tuple[Array, TokenStats]:
  """Tokens and stats on one device, from its rows and columns of the logits."""
  if temperature != 1.0:
    logits = logits / temperature
  platform = cpu_bfloat16.platform_of(axes.mesh)
  blocks = column_blocks.split(logits, -jnp.inf, platform)
  maxima = jnp.max(blocks, axis=3)
  largest = axes.reduce_max(jnp.max(maxima, axis=1).reshape(-1))
  sums, weighted = _sums(platform, blocks, largest)
  shard_sums = axes.gather(jnp.sum(sums, axis=1).reshape(-1, 1))
  maxima, sums = column_blocks.by_row(maxima), column_blocks.by_row(sums)
  total = jnp.sum(shard_sums, axis=1)
  log_sum = jnp.log(total)
  weighted = axes.reduce_sum(weighted)

  first = axes.index() * logits.shape[1]
  if support is not None:
    count = max(support.top_k, top_k)
    values, ids = _largest(axes, blocks, maxima, first, count)
    ids = jnp.minimum(ids, size - 1)  # Padding columns have no mass.
    # Where it is sliced, XLA takes a top-k for a sort of all columns on a CPU.
    values, ids = jax.lax.optimization_barrier((values, ids))
    return _from_likeliest(support, values, ids, total, uniform, top_k)
  if uniform is None:
    values, ids = _largest(axes, blocks, maxima, first, 1)
    token, found = ids[:, 0], values[:, 0]
  else:
    shard, target = inverse_cdf.first_above(shard_sums, uniform * total)
    column, value = inverse_cdf.draw(blocks, largest, sums, target)
    mine = shard == axes.index()
    token = axes.reduce_sum(jnp.where(mine, first + column, 0))
    found = axes.reduce_sum(jnp.where(mine, value, 0.0))

  def log_prob(logits: Array) -> Array:
    # The maximum is subtracted first: then no log-prob exceeds 0.
    log_total = jnp.expand_dims(log_sum, tuple(range(1, logits.ndim)))
    top = jnp.expand_dims(largest, tuple(range(1, logits.ndim)))
    return jnp.maximum(logits - top - log_total, LOWEST_LOG_PROB)

  top_log_probs, top_ids = None, None
  if top_k:
    values, top_ids = _largest(axes, blocks, maxima, first, top_k)
    top_ids = jnp.minimum(top_ids, size - 1)  # Padding columns have no mass.
    top_log_probs = log_prob(values)
  return token, TokenStats(
    log_probs=log_prob(found),
    top_ids=top_ids,
    top_log_probs=top_log_probs,
    entropy=log_sum - weighted / total,
  )


def _from_likeliest(
  support: Support,
  values: Array,
  ids: Array,
  total: Array,
  uniform: Array | None,
  top_k: int,
) -> tuple[Array, TokenStats]:
  """Tokens and stats of the filtered law; nothing crosses devices.

  Args:
    support: the filter.
    values: f32 [B, n], the n largest logits, descending; n is at least its K.
    ids: i32 [B, n], of them.
    total: f32 [B], sum of exp(z - largest) over the vocabulary.
    uniform: as in `sample_token`.
    top_k: log-probs to record, at most n.
  """
  kept = support.keeps(values[:, : support.top_k], total)
  chosen = jnp.where(kept, ids[:, : support.top_k], OUTSIDE)
  kept = jnp.pad(kept, ((0, 0), (0, values.shape[1] - support.top_k)))
  below = jnp.where(kept, values - values[:, :1], LOWEST_LOG_PROB)
  masses = jnp.where(kept, jnp.exp(below), 0.0)
  total = jnp.sum(masses, axis=1)
  place = jnp.zeros(total.shape, jnp.int32)
  if uniform is not None:
    place, _ = inverse_cdf.first_above(masses, uniform * total)
  log_sum = jnp.log(total)
  log_probs = jnp.maximum(below - log_sum[:, None], LOWEST_LOG_PROB)

  def at_place(of: Array) -> Array:
    return jnp.take_along_axis(of, place[:, None], axis=1)[:, 0]

  return at_place(ids), TokenStats(
    log_probs=at_place(log_probs),
    top_ids=ids[:, :top_k] if top_k else None,
    top_log_probs=log_probs[:, :top_k] if top_k else None,
    entropy=log_sum - jnp.sum(masses * below, axis=1) / total,
    support=chosen,
  )


def _sums(platform: str, blocks: Array, largest: Array) -> tuple[Array, Array]:
  """Sums of e and of e log e; e = exp(z - largest).

  On a CPU a few blocks at a time, which fit into its cache.

  Args:
    platform: of the devices.
    blocks: f32 [B / g, blocks, g, columns].
    largest: f32 [B].

  Returns:
    Of each block f32 [B / g, blocks, g], and of each row f32 [B].
  """
  largest = column_blocks.beside(largest, blocks)
  if platform == 'cpu' and blocks.shape[1] >= _PART:
    sums, weighted = _sums_by_parts(platform, blocks, largest)
  else:
    sums, weighted = _sums_at_once(platform, blocks, largest)
  return sums, weighted.reshape(-1)


def _sums_at_once(
  platform: str, blocks: Array, largest: Array
) -> tuple[Array, Array]:
  # 0 log 0 is 0: a filtered token adds nothing.
  below = jnp.maximum(blocks - largest, LOWEST_LOG_PROB)
  masses = jnp.exp(below)
  if platform == 'cpu':  # They are used twice, and would be computed twice.
    masses = jax.lax.optimization_barrier(masses)
  return jnp.sum(masses, axis=3), jnp.sum(masses * below, axis=(1, 3))


def _sums_by_parts(
  platform: str, blocks: Array, largest: Array
) -> tuple[Array, Array]:
  rows, num_blocks, together, _ = blocks.shape
  whole = num_blocks // _PART

  def add(part: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
    begin = part * _PART
    some = jax.lax.dynamic_slice_in_dim(blocks, begin, _PART, axis=1)
    masses, weighted = _sums_at_once(platform, some, largest)
    put = jax.lax.dynamic_update_slice_in_dim(carry[0], masses, begin, axis=1)
    return put, carry[1] + weighted

  zero = jnp.zeros((rows, whole * _PART, together)), jnp.zeros((rows, together))
  sums, weighted = jax.lax.fori_loop(0, whole, add, zero)
  if num_blocks == whole * _PART:
    return sums, weighted
  rest = blocks[:, whole * _PART :]
  masses, more = _sums_at_once(platform, rest, largest)
  return jnp.concatenate([sums, masses], axis=1), weighted + more


def _largest(
  axes: VocabularyAxes,
  blocks: Array,
  maxima: Array,
  first: Array | int,
  k: int,
) -> tuple[Array, Array]:
  """The K largest of all columns, and their ids; only candidates are sent."""
  here = min(k, blocks.shape[1] * blocks.shape[3])
  values, columns = top_k_of_blocks(blocks, maxima, here)
  values = axes.gather(values)
  ids = axes.gather(columns + first)
  if axes.num_shards == 1:
    return values, ids
  values, place = jax.lax.top_k(values, k)
  return values, jnp.take_along_axis(ids, place, axis=1)
