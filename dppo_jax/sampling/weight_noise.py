"""Noise on the sampler's weights: a mismatch of any size, without a pattern.

Rounding errs in the same direction for as long as a weight stays where it is.
Noise is drawn anew for every version of the weights, so that it has no mean.
"""

from typing import Any
import zlib

import jax
import jax.numpy as jnp

from dppo_jax.base import Array, Params
from dppo_jax.sampling.weight_rounding import is_matrix


def add_noise(
  params: Params, scale: float, key: Array, *, adapter: bool = False
) -> Params:
  """Parameters whose weight matrices have noise: W (1 + scale e), e ~ N(0, 1).

  A function of the key and of a parameter's name: neither the other parameters
  nor the layout over devices changes it.

  Args:
    params: nested dict.
    scale: relative standard deviation, at least 0.
    key: of this version of the weights.
    adapter: whether these are an adapter's matrices, all of which have noise;
      otherwise norms and biases have none.

  Returns:
    The same tree and dtypes.
  """

  def perturb(path: Any, leaf: Array) -> Array:
    names = tuple(key.key for key in path)
    if not adapter and not is_matrix(names):
      return leaf
    own = jax.random.fold_in(key, zlib.crc32('/'.join(names).encode()))
    noise = jax.random.normal(own, leaf.shape, jnp.float32)
    return (leaf * (1.0 + scale * noise)).astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(perturb, params)
