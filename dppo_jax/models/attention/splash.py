"""Attention on TPUs by the splash kernels of JAX's Pallas operators.

Each source of keys is one call, and their results are merged by log-sum-exp.
The backward pass hands every call the log-sum-exp and the output of all
sources together: a kernel computes its weights again as exp(score - log-sum-
exp), so these are the merged ones, and its gradients are its share of the
whole. That is also why a query that sees no key of a source is right here: the
library's own gradient of such a call is not that of its values.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import jax
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_kernel as kernels,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_mask as masks,
)
import jax.numpy as jnp

from dppo_jax.base import Array
from dppo_jax.models.attention.sources import HIDDEN_SCORE, KeySource

# Of the kernels: lengths are multiples of it.
_LANES = 128
_HEAD_DIM = 64
# Queries and keys of a block; a power of two times `_LANES`.
_BLOCK = 512
# Ids that no key and no query has: padding up to a multiple of the block.
_NO_KEY, _NO_QUERY = -1, -2


def refuses(query: Array, sources: Sequence[KeySource]) -> str:
  """Why the kernels do not take a call, or ''."""
  del sources  # Lengths are padded.
  head_dim = query.shape[-1]
  if head_dim % _HEAD_DIM:
    return f'a head_dim of {head_dim}, which is no multiple of {_HEAD_DIM}'
  if not hasattr(kernels, '_splash_attention_bwd'):
    return f'the merged backward pass under jax {jax.__version__}'
  return ''


def attend(
  query: Array, sources: Sequence[KeySource], *, interpret: bool = False
) -> Array:
  """softmax(q k / sqrt(head_dim)) v over all sources together.

  Args:
    query: [B, Q, H, head_dim].
    sources: what it sees.
    interpret: runs the kernels as plain JAX, anywhere; for tests.

  Returns:
    [B, Q, H, head_dim]; zeros where a query sees no key.
  """
  query = jnp.swapaxes(query * query.shape[-1] ** -0.5, 1, 2)
  mixed: Array = _attend(interpret, query, list(sources))
  return jnp.swapaxes(mixed, 1, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(interpret: bool, query: Array, sources: list[KeySource]) -> Array:
  return _forward(interpret, query, sources)[0]


def _forward(
  interpret: bool, query: Array, sources: list[KeySource]
) -> tuple[Array, Any]:
  """[B, H, Q, head_dim], and what the backward pass reads."""
  calls = [_Call(source, query.shape, interpret) for source in sources]
  parts = [call.forward(query) for call in calls]
  log_sums = [log_sum for _, log_sum in parts]
  log_sum = functools.reduce(jnp.logaddexp, log_sums)
  mixed = jnp.zeros(query.shape, jnp.float32)
  for part, own in parts:
    # Of a query that sees nothing here; its part is a mean of hidden values.
    seen = (own > HIDDEN_SCORE)[..., None]
    share = jnp.exp(own - jnp.maximum(log_sum, HIDDEN_SCORE))[..., None]
    mixed += jnp.where(seen, part.astype(jnp.float32) * share, 0.0)
  mixed = mixed.astype(query.dtype)
  # Of a query that sees nothing at all, so large that its weights are 0.
  log_sum = jnp.where(log_sum > HIDDEN_SCORE, log_sum, -HIDDEN_SCORE)
  return mixed, (query, sources, mixed, log_sum)


def _backward(
  interpret: bool, saved: Any, cotangent: Array
) -> tuple[Array, list[Any]]:
  query, sources, mixed, log_sum = saved
  total, gradients = jnp.zeros(query.shape, jnp.float32), []
  for source in sources:
    call = _Call(source, query.shape, interpret)
    of_query, keys, values = call.backward(query, mixed, log_sum, cotangent)
    total += of_query.astype(jnp.float32)
    gradients.append(
      dataclasses.replace(
        source,
        keys=keys.astype(source.keys.dtype),
        values=values.astype(source.values.dtype),
        key_segments=None,
        query_segments=None,
      )
    )
  return total.astype(query.dtype), gradients


_attend.defvjp(_forward, _backward)


class _Call:
  """A kernel over one source: an entry with all rows that share it."""

  def __init__(
    self, source: KeySource, shape: tuple[int, ...], interpret: bool
  ) -> None:
    self.source = source
    rows, self.heads, self.width, _ = shape
    self.entries, _, self.size, _ = source.keys.shape
    self.share = rows // self.entries
    # A causal source has an entry for each row, so that one row is one square.
    num_queries = self.share * self.width
    block_q, self.num_queries = _padded(num_queries)
    block_k, self.num_keys = _padded(self.size)
    if source.is_causal:
      mask = masks.CausalMask((self.num_queries, self.num_keys))
    else:
      mask = masks.FullMask((self.num_queries, self.num_keys))
    self.kernel: Any = kernels.make_splash_mha(
      mask=masks.MultiHeadMask([mask] * self.heads),
      block_sizes=kernels.BlockSizes(
        block_q=block_q,
        block_kv=block_k,
        block_kv_compute=block_k,
        block_q_dkv=block_q,
        block_kv_dkv=block_k,
        block_kv_dkv_compute=block_k,
        block_q_dq=block_q,
        block_kv_dq=block_k,
      ),
      save_residuals=True,
      head_shards=1,
      q_seq_shards=1,
      interpret=interpret,
    )

  def forward(self, query: Array) -> tuple[Array, Array]:
    """Of this source: [B, H, Q, head_dim], and log-sum-exp f32 [B, H, Q]."""
    keys, values, ids = self._inputs()
    run = jax.vmap(lambda q, k, v, ids: self.kernel(q, k, v, ids))
    mixed, (log_sum,) = run(self._by_entry(query), keys, values, ids)
    return self._by_row(mixed), self._by_row(log_sum)

  def backward(
    self, query: Array, mixed: Array, log_sum: Array, cotangent: Array
  ) -> tuple[Array, Array, Array]:
    """Gradients of the queries, by this source, and of its keys and values."""
    keys, values, ids = self._inputs()
    kernel = self.kernel

    def run(
      q: Array, k: Array, v: Array, ids: Any, o: Array, lse: Array, do: Array
    ) -> Any:
      sinks = None
      infos = kernel.dq_mask_info, kernel.dkv_mask_info
      saved = (q, k, v, ids, sinks, o, lse, *infos)
      found: Any = kernels._splash_attention_bwd(
        res=saved, do=do, **kernel.kwargs
      )
      return found[3:6]

    query, mixed, cotangent = (
      self._by_entry(x) for x in (query, mixed, cotangent)
    )
    log_sum = self._by_entry(log_sum[..., None], fill=-HIDDEN_SCORE)[..., 0]
    of_query, of_keys, of_values = jax.vmap(run)(
      query, keys, values, ids, mixed, log_sum, cotangent
    )
    end = self.size
    return self._by_row(of_query), of_keys[:, :, :end], of_values[:, :, :end]

  def _inputs(self) -> tuple[Array, Array, kernels.SegmentIds]:
    """Keys, values and ids, padded to whole blocks."""
    source, more = self.source, self.num_keys - self.size
    pad = ((0, 0), (0, 0), (0, more), (0, 0))
    seen = jnp.broadcast_to(source.key_segments, (self.entries, self.size))
    seen = jnp.where(seen == 0, _NO_KEY, seen)
    sought = jnp.broadcast_to(
      source.query_segments, (self.entries * self.share, self.width)
    )
    sought = sought.reshape(self.entries, -1)
    sought = jnp.where(sought == 0, _NO_QUERY, sought)
    more_queries = self.num_queries - sought.shape[1]
    ids = kernels.SegmentIds(
      q=jnp.pad(sought, ((0, 0), (0, more_queries)), constant_values=_NO_QUERY),
      kv=jnp.pad(seen, ((0, 0), (0, more)), constant_values=_NO_KEY),
    )
    return jnp.pad(source.keys, pad), jnp.pad(source.values, pad), ids

  def _by_entry(self, x: Array, fill: float = 0.0) -> Array:
    """[B, H, Q, D] -> [E, H, queries of all rows that share it, D], padded."""
    x = x.reshape(self.entries, self.share, *x.shape[1:])
    x = jnp.swapaxes(x, 1, 2)
    x = x.reshape(self.entries, self.heads, -1, x.shape[-1])
    more = self.num_queries - x.shape[2]
    pad = ((0, 0), (0, 0), (0, more), (0, 0))
    return jnp.pad(x, pad, constant_values=fill)

  def _by_row(self, x: Array) -> Array:
    """Undoes `_by_entry`; also of [E, H, queries]."""
    x = x[:, :, : self.share * self.width]
    shape = self.share, self.width, *x.shape[3:]
    x = jnp.swapaxes(x.reshape(self.entries, self.heads, *shape), 1, 2)
    return x.reshape(-1, self.heads, *shape[1:])


def _padded(size: int) -> tuple[int, int]:
  """Block and length that it divides, for a number of tokens.

  >>> _padded(100), _padded(600), _padded(4096)
  ((128, 128), (512, 1024), (512, 4096))
  """
  whole = -(-size // _LANES) * _LANES
  block = min(_BLOCK, whole)
  return block, -(-size // block) * block
