"""Rounding of the sampler's weights: a train-inference mismatch on purpose.

Engines sample with weights coarser than the trainer's. Here the weights are
rounded and the arithmetic stays as it is, so that the mismatch is exactly that
of the weights. Norms and biases are left alone, as engines do. An adapter is
not merged first: engines keep it beside the rounded base, in 16 bits.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from dppo_jax.base import Array, Params
from dppo_jax.models.policy import AdaptedParams


def _through(weights: Array, dtype: Any) -> Array:
  """Casts there and back, past compilers that would drop the pair."""
  return jax.lax.optimization_barrier(weights.astype(dtype)).astype(
    weights.dtype
  )


def _round_bfloat16(weights: Array, in_axes: tuple[int, ...]) -> Array:
  del in_axes
  return _through(weights, jnp.bfloat16)


def _round_fp8(weights: Array, in_axes: tuple[int, ...]) -> Array:
  """float8 e4m3, one scale a tensor."""
  del in_axes
  largest = float(jnp.finfo(jnp.float8_e4m3fn).max)
  scale = jnp.maximum(jnp.max(jnp.abs(weights)), 1e-30) / largest
  return _through(weights / scale, jnp.float8_e4m3fn) * scale


def _round_integers(
  levels: int,
) -> Callable[[Array, tuple[int, ...]], Array]:
  """Symmetric integers in [-levels, levels], one scale an output channel."""

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
  params: Params, precision: str, *, narrow: bool = False
) -> Params:
  """Rounds every weight matrix to the values `precision` can hold.

  Args:
    params: nested dict; kernels of scanned layers have a leading layer axis.
      Or AdaptedParams: the adapter is rounded to bfloat16, however coarse the
      base.
    precision: a key of `PRECISIONS`.
    narrow: keep the matrices of bfloat16 in 16 bits. The values are the same,
      and so is what a policy computes, which casts them to its own dtype.

  Returns:
    The same tree; weights are f32, or of 16 bits if they were, or are to be,
    and `precision` is bfloat16. An adapter stays f32: its product is scaled.
  """
  rounding = PRECISIONS[precision]
  if rounding is None:
    return params
  if isinstance(params, AdaptedParams):
    return dataclasses.replace(
      params,
      base=round_params(params.base, precision, narrow=narrow),
      adapter=round_adapter(params.adapter, precision),
    )

  def round_leaf(path: Any, leaf: Array) -> Array:
    in_axes = _in_axes(tuple(key.key for key in path))
    if in_axes is None:
      return leaf
    if narrow and precision == 'bfloat16':
      return leaf.astype(jnp.bfloat16)
    if precision != 'bfloat16':  # Scales of a base in 16 bits are f32, too.
      leaf = leaf.astype(jnp.float32)
    return rounding(leaf, in_axes)

  return jax.tree_util.tree_map_with_path(round_leaf, params)


def round_adapter(adapter: Params, precision: str) -> Params:
  """Rounds an adapter to bfloat16, whatever the base is rounded to.

  Args:
    adapter: nested dict, f32.
    precision: of the base; float32 rounds nothing.
  """
  if PRECISIONS[precision] is None:
    return adapter
  return jax.tree.map(lambda leaf: _through(leaf, jnp.bfloat16), adapter)


def _in_axes(path: tuple[str, ...]) -> tuple[int, ...] | None:
  """Axes a weight is summed over; None for what is not a matrix."""
  if path in (('embedding',), ('head',)):
    return (1,)
  if path[-1] != 'kernel':
    return None
  if 'experts' in path:
    return (2,)
  return (1, 2) if path[-2] == 'output' else (1,)
