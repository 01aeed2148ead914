"""Attention on GPUs by the Triton kernels of JAX's Pallas operators.

They take one sequence of keys that is the queries' own, with one array of ids
for both. Where they fall short of the contract, it is made good around them:

- Ids of 0 match each other, so padding sees padding. Its outputs and their
  cotangents are set to 0, and then its gradients are.
- They sum output times cotangent in the dtype of both, and the difference from
  it is a gradient: in bfloat16, 1.6 times the error. They get the output in
  f32, and the sum is f32.
- Each head has keys of its own. Gradients of those that share are summed in
  f32.
"""

from collections.abc import Sequence
import functools
import importlib
from typing import Any
import warnings

import jax
import jax.numpy as jnp

from dppo_jax.base import Array
from dppo_jax.models.attention.sources import KeySource

# Of the kernels: lengths are multiples of it.
_BLOCK = 128
_HEAD_DIMS = (64, 128)


@functools.cache
def _kernels() -> Any:
  """The module, imported once it is of use.

  JAX 0.12 says as it is imported that another package will follow it.
  """
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', DeprecationWarning)
    return importlib.import_module('jax.experimental.pallas.ops.gpu.attention')


def refuses(query: Array, sources: Sequence[KeySource]) -> str:
  """Why the kernels do not take a call, or ''."""
  head_dim = query.shape[-1]
  if len(sources) > 1 or not sources[0].is_causal:
    return 'keys other than those of the queries themselves'
  if sources[0].query_segments is not sources[0].key_segments:
    return 'ids of queries that are not those of their keys'
  if head_dim not in _HEAD_DIMS:
    return (
      f'a head_dim of {head_dim}, only {" and ".join(map(str, _HEAD_DIMS))}'
    )
  if query.dtype.itemsize != 2:
    return f'{query.dtype.name}, only 16 bits'
  if not hasattr(_kernels(), '_mha_backward'):
    return f'the backward pass under jax {jax.__version__}'
  return ''


def attend(
  query: Array, sources: Sequence[KeySource], *, interpret: bool = False
) -> Array:
  """softmax(q k / sqrt(head_dim)) v over the own sequence of the queries.

  Args:
    query: [B, S, H, head_dim].
    sources: one, which `refuses` takes.
    interpret: runs the kernels as plain JAX, anywhere; for tests.

  Returns:
    [B, S, H, head_dim]; zeros where a query is padding.
  """
  (source,) = sources
  rows, size = query.shape[:2]
  ids = jnp.broadcast_to(source.key_segments, (rows, size))
  more = ((0, 0), (0, -size % _BLOCK))
  query, keys, values = (
    jnp.pad(x, (*more, (0, 0), (0, 0)))
    for x in (
      query,
      jnp.swapaxes(source.keys, 1, 2),
      jnp.swapaxes(source.values, 1, 2),
    )
  )
  ids = jnp.pad(ids, more)
  mixed: Array = _attend(interpret, query, keys, values, ids)
  mixed = jnp.where((ids != 0)[..., None, None], mixed, 0)
  return mixed[:, :size]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
  interpret: bool, query: Array, keys: Array, values: Array, ids: Array
) -> Array:
  """[B, S, H, D] of keys and values [B, S, kv_heads, D], S of whole blocks."""
  return _forward(interpret, query, keys, values, ids)[0]


def _forward(
  interpret: bool, query: Array, keys: Array, values: Array, ids: Array
) -> tuple[Array, Any]:
  found: Any = _kernels().mha(
    query,
    *_of_heads(query, keys, values),
    ids,
    *_settings(query),
    interpret=interpret,
    return_residuals=True,
  )
  mixed, log_sum = found
  return mixed, (query, keys, values, ids, mixed, log_sum)


def _backward(
  interpret: bool, saved: Any, cotangent: Array
) -> tuple[Array, Array, Array, None]:
  query, keys, values, ids, mixed, log_sum = saved
  scale, causal, blocks = _settings(query)
  found: Any = _kernels()._mha_backward(
    sm_scale=scale,
    causal=causal,
    block_sizes=blocks,
    backward_pass_impl='triton',
    num_warps=None,
    num_stages=2,
    grid=None,
    interpret=interpret,
    debug=False,
    return_residuals=False,
    res=(
      query,
      *_of_heads(query, keys, values),
      ids,
      mixed.astype(jnp.float32),
      log_sum,
    ),
    do=cotangent,
  )
  of_query, of_keys, of_values, _ = found
  shape = *keys.shape[:3], -1, keys.shape[3]
  of_keys, of_values = (
    jnp.sum(x.reshape(shape), axis=3, dtype=jnp.float32).astype(x.dtype)
    for x in (of_keys, of_values)
  )
  return of_query, of_keys, of_values, None


_attend.defvjp(_forward, _backward)


def _of_heads(query: Array, *shared: Array) -> list[Array]:
  """Keys or values of every head, [B, S, H, D]."""
  share = query.shape[2] // shared[0].shape[2]
  return [jnp.repeat(x, share, axis=2) for x in shared]


def _settings(query: Array) -> tuple[float, bool, Any]:
  """Scale, causality and blocks, in the order of the library's arguments."""
  return query.shape[-1] ** -0.5, True, _kernels().BlockSizes.get_default()
