"""CPPO's position weights and cumulative prefix budget.

Equations 8, 9 and 22, and Algorithm 1, of arXiv:2606.10968. For a completion
of its own length T, t = 1..T:

  Z_t = w_t D_t            S_t = sum_{j<=t} Z_j        W_t = sum_{j<=t} w_j
  c_t = min{ delta, delta + delta_b W_{t-1} - S_{t-1} }

A token violates the region when Z_t > c_t. S and W take in every completion
token after the decision at t, masked ones and those moving toward mu included.
c_t can become negative: nothing may diverge until the budget has recovered.
"""

from typing import Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp

from dppo_jax.base import Array
from dppo_jax.ops.masking import masked_quantile

# Seeds the one fixed order of the shuffled-weights ablation.
_SHUFFLE_SEED = 20260610


class Prefix(NamedTuple):
  """Running sums at each token of a completion; every array f32 [B, T].

  Attributes:
    weighted: Z_t, the divergence times the position weight.
    spent: S_t, the running sum of Z, token t included.
    weight: W_t, the running sum of w, token t included.
    spent_before: S_{t-1}.
    weight_before: W_{t-1}.
  """

  weighted: Array
  spent: Array
  weight: Array
  spent_before: Array
  weight_before: Array


def position_weights(
  mask: Array, w_min: float, order: Literal['linear', 'shuffled']
) -> Array:
  """w_t = 1 - (1 - w_min) (t - 1) / (T - 1) (eq. 9).

  Args:
    mask: bool [B, T'], completion tokens; T is the count of a row, never the
      padded width T'.
    w_min: weight of the last token, in (0, 1]; 1 switches the weights off.
    order: 'linear', or 'shuffled': the same weights dealt out to positions in
      an order that depends on T alone (an ablation).

  Returns:
    f32 [B, T'], 0.0 where masked; 1.0 in a completion of one token.

  >>> weights = position_weights(jnp.array([[1, 1, 1, 0]], bool), 0.8, 'linear')
  >>> [round(float(w), 2) for w in weights[0]]
  [1.0, 0.9, 0.8, 0.0]
  """
  chex.assert_rank(mask, 2)
  length = jnp.sum(mask, axis=1, keepdims=True, dtype=jnp.float32)
  index = jnp.cumsum(mask, axis=1, dtype=jnp.float32) - 1.0
  if order == 'shuffled':
    index = _shuffled(mask, index)
  fraction = index / jnp.maximum(length - 1.0, 1.0)
  return jnp.where(mask, 1.0 - (1.0 - w_min) * fraction, 0.0)


def accumulate(divergence: Array, weights: Array, mask: Array) -> Prefix:
  """Running sums along the completion (section 3.3); arguments [B, T]."""
  weighted = jnp.where(mask, weights * divergence, 0.0)
  spent = jnp.cumsum(weighted, axis=1)
  weight = jnp.cumsum(weights, axis=1)
  return Prefix(weighted, spent, weight, spent - weighted, weight - weights)


def dynamic_budget(divergence: Array, mask: Array, least: float) -> Array:
  """delta_b = clamp(P90(D_1..T), least, 2 least) of each completion (eq. 22).

  Args:
    divergence: f32 [B, T].
    mask: bool [B, T]; only these tokens count.
    least: delta_b_min.

  Returns:
    f32 [B, 1].
  """
  high = masked_quantile(divergence, mask, 0.9)
  return jnp.clip(high, least, 2.0 * least)[:, None]


def thresholds(prefix: Prefix, delta: Array, budget: Array | float) -> Array:
  """c_t = min{ delta, delta + delta_b W_{t-1} - S_{t-1} } (eq. 8).

  Args:
    prefix: of `accumulate`.
    delta: f32 [B, T], the bound of a single token.
    budget: delta_b, a number or f32 [B, 1]; inf switches the budget off.

  Returns:
    f32 [B, T].
  """
  # An unlimited budget of nothing is nothing, not NaN.
  earned = jnp.where(
    prefix.weight_before > 0, budget * prefix.weight_before, 0.0
  )
  return jnp.minimum(delta, delta + earned - prefix.spent_before)


def soft_gate(prefix: Prefix, delta: Array, budget: Array | float) -> Array:
  """g(x) = min(1, 1 / x) in place of the 0/1 mask (soft CPPO).

  x_t = max( Z_t / delta, S_t / (delta + delta_b W_{t-1}) )

  Args:
    prefix: of `accumulate`.
    delta: f32 [B, T], > 0.
    budget: delta_b.

  Returns:
    f32 [B, T] in (0, 1].
  """
  earned = jnp.where(
    prefix.weight_before > 0, budget * prefix.weight_before, 0.0
  )
  allowed = delta + earned
  x = jnp.maximum(prefix.weighted / delta, prefix.spent / allowed)
  return 1.0 / jnp.maximum(x, 1.0)


def _shuffled(mask: Array, index: Array) -> Array:
  """Ranks of the positions by a fixed hash, among those of the completion."""
  key = jax.random.PRNGKey(_SHUFFLE_SEED)
  width = mask.shape[1]
  # One number a position, whatever the width: padding cannot change the order.

  def hash_of(position: Array) -> Array:
    return jax.random.bits(jax.random.fold_in(key, position))

  hashes = jax.vmap(hash_of)(jnp.arange(width))
  hashes = (hashes >> 8).astype(jnp.float32)  # 24 bits are exact in f32.
  of_token = jnp.take(hashes, index.astype(jnp.int32) % width)
  ranked = jnp.argsort(jnp.where(mask, of_token, jnp.inf), axis=1)
  return jnp.argsort(ranked, axis=1).astype(jnp.float32)
