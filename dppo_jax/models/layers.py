"""Parts of a layer: projections, normalization, rotary embedding, SwiGLU.

Parameters are f32 and cast to the compute dtype where they are used. Each one
names its logical axes; `parallel.AXIS_RULES` says where they live.
"""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from dppo_jax.base import Array
from dppo_jax.models import cpu_bfloat16, cpu_kernels
from dppo_jax.ops import products


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
  """Shape and numerics of a policy; every default is in configs/default.py.

  Attributes:
    vocab_size: V.
    num_layers: L.
    d_model: D, width of the residual stream.
    num_heads: query heads H.
    num_kv_heads: key and value heads, a divisor of H.
    head_dim: width of a head, even; independent of D / H.
    d_ff: width of the gated feed-forward layer.
    num_experts: E, experts of a sparse layer; 0 for none.
    num_experts_per_tok: k, experts per token.
    moe_intermediate_size: width of an expert.
    norm_topk_prob: the k gates of a token sum to 1.
    decoder_sparse_step: layers step, 2 · step, … are sparse, counted from 1.
    mlp_only_layers: those that are not, counted from 0.
    rope_theta: base of the rotary wavelengths.
    rope_scaling: how the wavelengths are stretched.
    rope_factor: by how much.
    rope_low_frequency_factor: llama3; wavelengths above original / this are
      stretched in full.
    rope_high_frequency_factor: llama3; below original / this, not at all.
    rope_original_length: llama3; context of the first training, tokens.
    qk_norm: normalize queries and keys by head.
    qkv_bias: add a bias to the three projections.
    tied_head: the head is the embedding, transposed.
    norm_epsilon: added to mean squares.
    init_scale: standard deviation of the initial weights.
    dtype: compute dtype, 'float32' or 'bfloat16'.
    scan_unroll: layers unrolled in one turn of the loop over layers; more
      compile longer and copy less.
    shard_sequence: between layers the columns of the residual stream are split
      over the mesh axis that splits heads.
    shard_attention: what that axis splits inside attention: 'heads', or
      'columns' (context parallelism), with `shard_sequence` only.
    remat: what a layer saves for its backward pass: 'none' saves everything,
      'dots' the matrix products, 'full' its input only.
    attention: implementation of attention, a key of
      `attention.dispatch.IMPLEMENTATIONS`, or 'auto': by the backend.
  """

  vocab_size: int
  num_layers: int
  d_model: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  d_ff: int
  num_experts: int
  num_experts_per_tok: int
  moe_intermediate_size: int
  norm_topk_prob: bool
  decoder_sparse_step: int
  mlp_only_layers: tuple[int, ...]
  rope_theta: float
  rope_scaling: Literal['none', 'linear', 'llama3']
  rope_factor: float
  rope_low_frequency_factor: float
  rope_high_frequency_factor: float
  rope_original_length: int
  qk_norm: bool
  qkv_bias: bool
  tied_head: bool
  norm_epsilon: float
  init_scale: float
  dtype: str
  scan_unroll: int
  shard_sequence: bool
  shard_attention: Literal['heads', 'columns']
  remat: Literal['none', 'dots', 'full']
  attention: str


class Projection(nn.Module):
  """x @ kernel (+ bias), summing over the leading axes of the kernel.

  Where the collection 'lora' has an adapter for it, (x A) B is added. Where the
  collection 'turned' has its kernel, [outputs, inputs], that one is used.

  Attributes:
    in_axes: (size, logical name) of the axes summed over.
    out_axes: (size, logical name) of the axes produced.
  """

  config: TransformerConfig
  in_axes: Sequence[tuple[int, str]]
  out_axes: Sequence[tuple[int, str]]
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: Array, product: Array | None = None) -> Array:
    """x @ kernel (+ bias), or `product` [tokens, outputs] in its place."""
    count = len(self.in_axes)
    lead = x.shape[: x.ndim - count]
    rows = math.prod(size for size, _ in self.in_axes)
    # Where a mesh splits rows and columns, no device has a part of a sequence
    # of all tokens: to make one, the compiler would gather them all.
    apart = self.config.shard_sequence and len(lead) == 2 and lead[1] > 1
    x = x.reshape(*(lead if apart else (-1,)), rows)
    if product is not None:
      y = product
    elif self.has_variable('turned', 'kernel'):
      kernel: Any = self.get_variable('turned', 'kernel')
      y = cpu_kernels.product(kernel.astype(x.dtype), x).astype(x.dtype)
    else:
      # Two axes each: with more, the gradient of the kernel sums over several
      # axes, and XLA transposes whole activations to do so.
      y = products.matmul(x, self._kernel().reshape(rows, -1))
    if self.has_variable('lora', 'lora_a'):
      y = y + self._adapted(x)
    y = y.reshape(*lead, *(size for size, _ in self.out_axes))
    if self.use_bias:
      bias: Any = self.param(
        'bias',
        nn.with_logical_partitioning(
          nn.initializers.zeros, tuple(name for _, name in self.out_axes)
        ),
        tuple(size for size, _ in self.out_axes),
      )
      bias = bias.astype(y.dtype)
      y = y + jnp.expand_dims(bias, tuple(range(len(lead))))
    return y

  def _kernel(self) -> Array:
    axes = (*self.in_axes, *self.out_axes)
    kernel: Any = self.param(
      'kernel',
      nn.with_logical_partitioning(
        nn.initializers.normal(self.config.init_scale),
        tuple(name for _, name in axes),
      ),
      tuple(size for size, _ in axes),
    )
    return cpu_bfloat16.unpack(kernel).astype(self.config.dtype)

  def _adapted(self, x: Array) -> Array:
    """(x A) B, what an adapter adds: [tokens, outputs]."""
    a: Any = self.get_variable('lora', 'lora_a')
    b: Any = self.get_variable('lora', 'lora_b')
    a = a.reshape(x.shape[-1], -1).astype(self.config.dtype)
    b = b.reshape(a.shape[-1], -1).astype(self.config.dtype)
    return products.matmul(products.matmul(x, a), b)


def project_all(
  module: nn.Module, projections: Sequence[Projection], x: Array
) -> list[Array]:
  """Several projections of x [..., D] that belong to a module.

  Where its collection 'turned' has their kernels as one, they are one product.
  """
  if not module.has_variable('turned', 'kernels'):
    return [project(x) for project in projections]
  kernels: Any = module.get_variable('turned', 'kernels')
  rows = x.reshape(-1, x.shape[-1])
  y = cpu_kernels.product(kernels.astype(x.dtype), rows).astype(x.dtype)
  products, begin = [], 0
  for project in projections:
    end = begin + math.prod(size for size, _ in project.out_axes)
    products.append(project(x, y[:, begin:end]))
    begin = end
  return products


class RMSNorm(nn.Module):
  """x / sqrt(mean(x^2) + epsilon) * scale over the last axis, f32 inside."""

  config: TransformerConfig

  @nn.compact
  def __call__(self, x: Array) -> Array:
    scale: Any = self.param(
      'scale',
      nn.with_logical_partitioning(nn.initializers.ones, ('norm',)),
      (x.shape[-1],),
    )
    x = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(mean_square + self.config.norm_epsilon)
    scale = jnp.expand_dims(scale, tuple(range(x.ndim - 1)))
    return (x * scale).astype(self.config.dtype)


class FeedForward(nn.Module):
  """SwiGLU: down(silu(gate(x)) * up(x)) (arXiv:2002.05202)."""

  config: TransformerConfig

  @nn.compact
  def __call__(self, x: Array) -> Array:
    c = self.config
    embed, mlp = (c.d_model, 'embed'), (c.d_ff, 'mlp')
    names = ('gate', 'up')
    into = [Projection(c, [embed], [mlp], name=name) for name in names]
    gate, up = project_all(self, into, x)
    return Projection(c, [mlp], [embed], name='down')(nn.silu(gate) * up)


def rotary_angles(config: TransformerConfig, positions: Array) -> Array:
  """Angle of each pair of features at each position.

  angle[t, i] = t * f_i, f_i = theta^(-2i / head_dim), stretched as configured
  (RoFormer, arXiv:2104.09864; llama3 as in the Llama 3.1 release: wavelengths
  beyond the original context are stretched, short ones kept, those between
  blended).

  Args:
    config: head_dim and the rope fields.
    positions: i32 [...], 0 at the first real token.

  Returns:
    f32 [..., head_dim / 2], radians.
  """
  exponents = jnp.arange(0, config.head_dim, 2) / config.head_dim
  frequencies = config.rope_theta**-exponents
  if config.rope_scaling == 'linear':
    frequencies = frequencies / config.rope_factor
  elif config.rope_scaling == 'llama3':
    low = config.rope_low_frequency_factor
    high = config.rope_high_frequency_factor
    turns = config.rope_original_length * frequencies / (2 * jnp.pi)
    kept = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    stretched = frequencies / config.rope_factor
    frequencies = kept * frequencies + (1 - kept) * stretched
  shape = (1,) * positions.ndim + frequencies.shape
  return positions[..., None].astype(jnp.float32) * frequencies.reshape(shape)


def rotary_factors(config: TransformerConfig, positions: Array) -> Array:
  """Cosines and sines of `rotary_angles`: f32 [..., 2, head_dim / 2].

  Made once for all layers: the compiler would make them again in each, for
  every head, and in the backward pass.
  """
  angles = rotary_angles(config, positions)
  return jax.lax.optimization_barrier(
    jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-2)
  )


def rotate(x: Array, factors: Array) -> Array:
  """Rotates the feature pairs (i, i + head_dim / 2) of every head.

  Args:
    x: [B, S, heads, head_dim].
    factors: f32 [B, S, 2, head_dim / 2], of `rotary_factors`.

  Returns:
    As `x`.
  """
  cos, sin = factors[:, :, None, 0], factors[:, :, None, 1]
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  rotated = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(rotated, axis=-1).astype(x.dtype)
