"""What follows the logits of a decode step: the draw and what is recorded.

One pass over the vocabulary gives block maxima and block sums; the rest works
on those. Over a mesh each device passes over its own columns; what crosses is
the maximum, one sum a device, the K candidates of each and the token drawn.
"""

import functools

import chex
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from dppo_jax.base import Array, TokenStats
from dppo_jax.ops.log_probs import LOWEST_LOG_PROB
from dppo_jax.ops.vocabulary_shard import VocabularyAxes
from dppo_jax.sampling import draw as draw_lib
from dppo_jax.sampling.top_k import top_k_of_blocks


def draw_and_record(
  axes: VocabularyAxes,
  logits: Array,
  uniform: Array | None,
  *,
  temperature: float,
  top_k: int,
) -> tuple[Array, TokenStats]:
  """Draws from softmax(logits / temperature) and says what it drew from.

  Args:
    axes: where rows and columns live.
    logits: f32 [B, V]; -inf where a filter forbids a token.
    uniform: f32 [B] in [0, 1), or None to take the most likely token.
    temperature: > 0.
    top_k: K <= V, log-probs to record; 0 for none.

  Returns:
    i32 [B] and TokenStats of [B], with the entropy. The same tokens however
    the columns are split, but for the rounding of sums.
  """
  chex.assert_rank(logits, 2)
  size = logits.shape[1]
  local = functools.partial(
    _local, axes, size=size, temperature=temperature, top_k=top_k
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
    check_vma=False,  # The reductions are written out below.
  )(logits, uniform)


def _local(
  axes: VocabularyAxes,
  logits: Array,
  uniform: Array | None,
  *,
  size: int,
  temperature: float,
  top_k: int,
) -> tuple[Array, TokenStats]:
  """On one device: its rows, and its columns of the vocabulary."""
  if temperature != 1.0:
    logits = logits / temperature
  blocks = draw_lib.in_blocks(logits, -jnp.inf)
  largest = axes.reduce_max(jnp.max(blocks, axis=(1, 2)))
  below = blocks - largest[:, None, None]
  masses = jnp.exp(below)
  sums = jnp.sum(masses, axis=2)
  # 0 log 0 is 0: a forbidden token adds nothing.
  weighted = jnp.sum(jnp.where(masses > 0, masses * below, 0.0), axis=(1, 2))
  shard_sums = axes.gather(jnp.sum(sums, axis=1, keepdims=True))
  total = jnp.sum(shard_sums, axis=1)
  log_sum = jnp.log(total)
  entropy = log_sum - axes.reduce_sum(weighted) / total

  first = axes.index() * logits.shape[1]
  if uniform is None:
    values, ids = _largest(axes, below, first, 1)
    token, found = ids[:, 0], values[:, 0]
  else:
    shard, target = draw_lib.first_above(shard_sums, uniform * total)
    column, value = draw_lib.draw(below, sums, target)
    mine = shard == axes.index()
    token = axes.reduce_sum(jnp.where(mine, first + column, 0))
    found = axes.reduce_sum(jnp.where(mine, value, 0.0))

  top_log_probs, top_ids = None, None
  if top_k:
    values, top_ids = _largest(axes, below, first, top_k)
    top_ids = jnp.minimum(top_ids, size - 1)  # Padding has no mass either.
    top_log_probs = jnp.maximum(values - log_sum[:, None], LOWEST_LOG_PROB)
  return token, TokenStats(
    log_probs=jnp.maximum(found - log_sum, LOWEST_LOG_PROB),
    top_ids=top_ids,
    top_log_probs=top_log_probs,
    entropy=entropy,
  )


def _largest(
  axes: VocabularyAxes, blocks: Array, first: Array | int, k: int
) -> tuple[Array, Array]:
  """The K largest of all columns and their ids: candidates cross, no logits."""
  here = min(k, blocks.shape[1] * blocks.shape[2])
  values, columns = top_k_of_blocks(blocks, here)
  values = axes.gather(values)
  ids = axes.gather(columns + first)
  if axes.num_shards == 1:
    return values, ids
  values, place = jax.lax.top_k(values, k)
  return values, jnp.take_along_axis(ids, place, axis=1)
