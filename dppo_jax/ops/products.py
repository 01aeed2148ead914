"""Matrix products whose precision follows the dtype of what is multiplied.

On TPUs and recent GPUs a product of f32 arrays is one of bf16 or TF32 unless
more is asked for. Here f32 means f32: such products ask for the highest
precision. Those of 16-bit arrays stay at the default, which is exact for them,
and are summed in f32. Every product of the models, the head and the sampler
goes through this module.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from dppo_jax.base import Array


def precision_of(*operands: Array) -> jax.lax.Precision | None:
  """HIGHEST where an operand is f32, None (the default) otherwise.

  >>> str(precision_of(jnp.ones(1), jnp.ones(1)))
  'HIGHEST'
  >>> precision_of(jnp.ones(1, jnp.bfloat16)) is None
  True
  """
  wide = any(x.dtype == jnp.float32 for x in operands)
  return jax.lax.Precision.HIGHEST if wide else None


def matmul(a: Array, b: Array) -> Array:
  """a @ b in the dtype of the operands."""
  return jnp.matmul(a, b, precision=precision_of(a, b))


def einsum(spec: str, a: Array, b: Array) -> Array:
  """The named sum of products in the dtype of the operands."""
  return jnp.einsum(spec, a, b, precision=precision_of(a, b))


def dot_general(a: Array, b: Array, dimensions: Any) -> Array:
  """`jax.lax.dot_general` with an f32 result; it is not differentiated."""
  return jax.lax.dot_general(
    a,
    b,
    dimensions,
    precision=precision_of(a, b),
    preferred_element_type=jnp.float32,
  )


def ragged_dot(
  rows: Array, kernels: Array, sizes: Array, dtype: Any = jnp.float32
) -> Array:
  """`jax.lax.ragged_dot` with a result of the dtype.

  To be differentiated it must be that of the operands, or JAX widens them.
  """
  return jax.lax.ragged_dot(
    rows,
    kernels,
    sizes,
    precision=precision_of(rows, kernels),
    preferred_element_type=dtype,
  )


def einsum_f32(spec: str, a: Array, b: Array) -> Array:
  """The named sum of products, f32 whatever the operands are.

  Args:
    spec: of `jnp.einsum`.
    a: f32 or bf16.
    b: of the same dtype.

  Numerics: of 16-bit operands the cotangent is cast once to their dtype, as
  an accelerator does anyway; JAX would widen the operands and make both
  products of the gradient f32.
  """
  product: Array = _einsum_f32(spec, a, b)
  return product


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _einsum_f32(spec: str, a: Array, b: Array) -> Array:
  return jnp.einsum(
    spec,
    a,
    b,
    precision=precision_of(a, b),
    preferred_element_type=jnp.float32,
  )


def _forward(
  spec: str, a: Array, b: Array
) -> tuple[Array, tuple[Array, Array]]:
  return _einsum_f32(spec, a, b), (a, b)


def _backward(
  spec: str, saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
  _, pull = jax.vjp(functools.partial(einsum, spec), *saved)
  gradients: tuple[Array, Array] = pull(cotangent.astype(saved[0].dtype))
  return gradients


_einsum_f32.defvjp(_forward, _backward)
