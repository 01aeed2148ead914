"""Frozen weights in bfloat16 on a CPU, which has no products of that type.

XLA computes bfloat16 in f32 there, slices of it included: the stacked weights
of all layers are widened before the loop over layers, and a base of 3.4 GB
takes 7 GB more. Slices of integers are left alone. So weights go into the loop
as the integers of their bits, and only those of one layer are widened.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dppo_jax.base import Array, Params

_BITS = jnp.uint16
# What `Projection` reads; experts have kernels of another kind.
_OTHERS = {'experts', 'router'}


def platform_of(mesh: Mesh | None) -> str:
  """Whose devices a program is for, which need not be those that trace it."""
  if mesh is None:
    return jax.default_backend()
  return mesh.devices.flat[0].platform


def pack(params: Params, platform: str) -> Params:
  """Kernels of the layers as bits, where they are bfloat16 on a CPU.

  Args:
    params: nested dict of arrays.
    platform: of `platform_of`.

  Returns:
    The same tree; what is packed cannot be differentiated.
  """

  def pack_leaf(path: Any, leaf: Array) -> Array:
    names = [str(key.key) for key in path]
    stacked = 'layers' in names and names[-1] == 'kernel'
    return bits(leaf, platform) if stacked and not _OTHERS & {*names} else leaf

  return jax.tree_util.tree_map_with_path(pack_leaf, params)


def bits(weights: Array, platform: str) -> Array:
  """The bits of bfloat16 weights on a CPU; others as they are."""
  if weights.dtype != jnp.bfloat16 or platform != 'cpu':
    return weights
  return _to_bits(weights)


def unpack(weights: Array) -> Array:
  """Arrays as before `bits`: bfloat16 again; all else as it is."""
  if weights.dtype != _BITS:
    return weights
  return jax.lax.bitcast_convert_type(weights, jnp.bfloat16)


@jax.custom_jvp
def _to_bits(weights: Array) -> Array:
  return jax.lax.bitcast_convert_type(weights, _BITS)


@_to_bits.defjvp
def _refuse(primals: Any, tangents: Any) -> Any:
  """Bits have no gradient; silence would train nothing."""
  del primals, tangents
  raise ValueError(
    'bfloat16 parameters are frozen on a CPU: differentiate float32 ones, or'
    ' adapters beside them.'
  )
