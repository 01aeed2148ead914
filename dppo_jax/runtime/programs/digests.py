"""Digests of weights: which bits an array holds, and where.

Sums of mixed bits modulo 2^32, so that they are the same over any mesh and in
any order of summation. Against mistakes, not against forgers.
"""

from collections.abc import Mapping
import functools
import hashlib
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.base import Array, Params
from dppo_jax.runtime.storage import flat_tree

_UINTS = {2: jnp.uint16, 4: jnp.uint32}
# Of the three sums, those that know the place of an element.
_PLACED = slice(2)


def sums(params: Params) -> dict[str, Array]:
  """Sums of every leaf by its name, see `leaf_sums`: u32 [3] each."""
  named = flat_tree.flatten(params)
  return {name: leaf_sums(leaf) for name, leaf in named.items()}


def leaf_sums(leaf: Array) -> Array:
  """Three sums over the elements: u32 [3].

  Two are of bits and place, the last one of bits alone: it stays where only the
  order has changed.
  """
  bits = jax.lax.bitcast_convert_type(leaf, _UINTS[leaf.dtype.itemsize])
  bits = bits.astype(jnp.uint32)
  strides = [math.prod(leaf.shape[i + 1 :]) % 2**32 for i in range(leaf.ndim)]
  places = [
    jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis) * jnp.uint32(stride)
    for axis, stride in enumerate(strides)
  ]
  place = functools.reduce(jnp.add, places, jnp.zeros(leaf.shape, jnp.uint32))
  mixed = _mix(bits ^ _mix(place + jnp.uint32(1)))
  parts = mixed, _mix(mixed + jnp.uint32(0x9E3779B9)), _mix(bits)
  # In one pass over the leaf: half the time to compile, too.
  zeros = (jnp.uint32(0),) * len(parts)
  axes = tuple(range(leaf.ndim))
  return jnp.stack(jax.lax.reduce(parts, zeros, _add_each, axes))


def _add_each(
  some: tuple[Array, ...], others: tuple[Array, ...]
) -> tuple[Array, ...]:
  return tuple(a + b for a, b in zip(some, others, strict=True))


def digest(params: Params, found: Mapping[str, Any]) -> str:
  """Names the bits of a tree: 16 hexadecimal digits.

  Args:
    params: of arrays or shapes.
    found: their `sums`, on the host.
  """
  hashed = hashlib.sha256()
  named = flat_tree.flatten(params)
  for name, (shape, dtype) in flat_tree.describe(named).items():
    hashed.update(f'{name} {shape} {dtype}'.encode())
    hashed.update(np.asarray(found[name][_PLACED], '<u4').tobytes())
  return hashed.hexdigest()[:16]


def differences(
  found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> list[str]:
  """How two sums of the same tree differ, a phrase for each leaf that does."""
  whose = {tuple(sums): name for name, sums in expected.items()}
  told = []
  for name, wanted in expected.items():
    got = found[name]
    if (got == wanted).all():
      continue
    other = whose.get(tuple(got))
    if other is not None:
      told.append(f'{name} holds {other}')
    elif got[-1] == wanted[-1]:
      told.append(f'{name} is permuted')
    else:
      told.append(f'{name} differs')
  return told


def _mix(x: Array) -> Array:
  """Spreads every bit over all 32, one to one (multiply and shift)."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
  x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
  return x ^ (x >> 16)
