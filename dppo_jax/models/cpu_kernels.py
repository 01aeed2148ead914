"""Kernels turned for products with a few rows on a CPU.

A decode step multiplies every weight with one row a completion, so that it
takes as long as the weights take to read. XLA's products on a CPU come near
that only where the weights stand on the left and are stored by rows; as the
trainer keeps them, [inputs, outputs], a step takes half as long again.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from dppo_jax.base import Array, Params
from dppo_jax.ops import products

# Rows up to which a product of turned weights is the faster one.
FEW = 64
# Projections of the same input, which one product makes.
_TOGETHER = (('query', 'key', 'value'), ('gate', 'up'))
# Their kernels are those of experts, which have products of their own.
_OTHERS = {'experts', 'router'}


def product(weights: Array, x: Array) -> Array:
  """x @ weights.T, fastest for a few rows.

  Args:
    weights: [outputs, inputs].
    x: [rows, inputs].

  Returns:
    f32 [rows, outputs].
  """
  if len(x) > FEW:  # To turn the rows takes longer than it saves.
    return products.dot_general(x, weights, (((1,), (1,)), ((), ())))
  outputs, inputs = weights.shape
  # As a batch of two: one product of 16-bit weights is ten times slower.
  halves = weights.reshape(2 if outputs % 2 == 0 else 1, -1, inputs)
  # The compiler would move both transposes into the product, which is then six
  # times slower. The barriers keep them out.
  columns = jax.lax.optimization_barrier(x.T)
  columns = jnp.broadcast_to(columns, (len(halves), *columns.shape))
  y = products.einsum_f32('gok,gkr->gor', halves, columns)
  return jax.lax.optimization_barrier(y.reshape(outputs, -1)).T


def turn(params: Params) -> tuple[Params, Params]:
  """Takes the kernels out of the parameters of a layer.

  Args:
    params: nested dict of one layer.

  Returns:
    The parameters without those kernels, and the kernels alone, each turned to
    [outputs, inputs]. Those of one input are one array, `kernels`, beside them.
  """
  rest, kernels = _take(params)
  return rest, jax.tree.map(jnp.transpose, kernels)


def _take(params: Params) -> tuple[Params, Params]:
  """The same, kernels [inputs, outputs]: joined first, all are turned alike."""
  rest: dict[str, Any] = {}
  kernels: dict[str, Any] = {}
  for name, value in params.items():
    if name in _OTHERS:
      rest[name] = value
    elif isinstance(value, dict):
      rest[name], kernels[name] = _take(value)
      if 'kernel' in rest[name]:
        kernel = rest[name].pop('kernel')
        # Only the projection back to the width sums over two axes.
        num_inputs = math.prod(kernel.shape[: 2 if name == 'output' else 1])
        kernels[name] = {'kernel': kernel.reshape(num_inputs, -1)}
    else:
      rest[name] = value
  for names in _TOGETHER:
    if kernels.keys() >= set(names):
      each = [kernels.pop(name)['kernel'] for name in names]
      kernels['kernels'] = jnp.concatenate(each, axis=1)
  return rest, kernels
