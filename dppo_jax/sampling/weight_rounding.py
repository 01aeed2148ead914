"""Rounding of the sampler's weights: a deliberate train-inference mismatch.

Inference engines sample with weights of lower precision than the trainer's.
Here only the weights are rounded and the arithmetic is unchanged, so that the
mismatch is exactly that of the weights. Norms and biases keep their precision,
as in engines. An adapter is not merged first: engines keep it in 16 bits beside
the quantized base weights.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from dppo_jax.base import Array, Params
from dppo_jax.models.policy import AdaptedParams


def _through(weights: Array, dtype: Any) -> Array:
  """Weights cast to `dtype` and back; compilers cannot remove the two casts."""
  return jax.lax.optimization_barrier(weights.astype(dtype)).astype(
    weights.dtype
  )


def _round_bfloat16(weights: Array, in_axes: tuple[int, ...]) -> Array:
  del in_axes
  return _through(weights, jnp.bfloat16)


def _round_fp8(weights: Array, in_axes: tuple[int, ...]) -> Array:
  """Weights in float8 e4m3, one scale per tensor."""
  del in_axes
  largest = float(jnp.finfo(jnp.float8_e4m3fn).max)
  scale = jnp.maximum(jnp.max(jnp.abs(weights)), 1e-30) / largest
  return _through(weights / scale, jnp.float8_e4m3fn) * scale


def _round_integers(
  levels: int,
) -> Callable[[Array, tuple[int, ...]], Array]:
  """Rounding to integers in [-levels, levels], one scale per output channel."""

  def round_to_levels(weights: Array, in_axes: tuple[int, ...]) -> Array:
    largest = jnp.max(jnp.abs(weights), axis=in_axes, keepdims=True)
    scale = jnp.maximum(largest, 1e-30) / levels
    return jnp.round(weights / scale) * scale

  return round_to_levels


PRECISIONS: Mapping[str, Callable[[Array, tuple[int, ...]], Array] | None] = {
  'float32': None,
  'bfloat16': _round_bfloat16,
  'int8': _round_integers(127),
  'fp8': _round_fp8,
  'int4': _round_integers(7),
}


def round_params(
  params: Params, precision: str, *, keep_bfloat16: bool = False
) -> Params:
  """Parameters with every weight matrix rounded to `precision`.

  Args:
    params: nested dict; kernels of scanned layers have a leading layer axis.
      Or AdaptedParams: the adapter is rounded to bfloat16, whatever the
      precision of the base weights.
    precision: a key of `PRECISIONS`.
    keep_bfloat16: whether to store bfloat16 matrices in 16 bits. Their values
      are the same, and so are a policy's outputs: it casts them to its dtype.

  Returns:
    The same tree. Weights are f32; in bfloat16 if `precision` is bfloat16 and
    they already were or `keep_bfloat16` is set. An adapter stays f32: its
    product is scaled.
  """
  rounding = PRECISIONS[precision]
  if rounding is None:
    return params
  if isinstance(params, AdaptedParams):
    return dataclasses.replace(
      params,
      base=round_params(params.base, precision, keep_bfloat16=keep_bfloat16),
      adapter=round_adapter(params.adapter, precision),
    )

  def round_leaf(path: Any, leaf: Array) -> Array:
    in_axes = _in_axes(tuple(key.key for key in path))
    if in_axes is None:
      return leaf
    if keep_bfloat16 and precision == 'bfloat16':
      return leaf.astype(jnp.bfloat16)
    if precision != 'bfloat16':  # Scales are f32, also for bfloat16 weights.
      leaf = leaf.astype(jnp.float32)
    return rounding(leaf, in_axes)

  return jax.tree_util.tree_map_with_path(round_leaf, params)


def round_adapter(adapter: Params, precision: str) -> Params:
  """Adapter rounded to bfloat16, whatever the precision of the base weights.

  Args:
    adapter: nested dict, f32.
    precision: of the base weights; float32 rounds nothing.
  """
  if PRECISIONS[precision] is None:
    return adapter
  return jax.tree.map(lambda leaf: _through(leaf, jnp.bfloat16), adapter)


def is_matrix(path: tuple[str, ...]) -> bool:
  """Whether a parameter is a weight matrix; not a norm's scale or a bias."""
  return _in_axes(path) is not None


def _in_axes(path: tuple[str, ...]) -> tuple[int, ...] | None:
  """Contracted axes of a weight matrix; None for other parameters."""
  if path in (('embedding',), ('head',)):
    return (1,)
  if path[-1] != 'kernel':
    return None
  if 'experts' in path:
    return (2,)
  return (1, 2) if path[-2] == 'output' else (1,)
