"""Rules that weigh every token instead of keeping or masking it.

Functions of rows of `trust_regions.TRUST_REGIONS`, where the hard ones are. M
may exceed 1 or be negative; a row says so by `signed`.
"""

import jax
import jax.numpy as jnp

from dppo_jax.base import Array, Signals
from dppo_jax.ops.directions import by_sign
from dppo_jax.ops.ratios import ratio
from dppo_jax.thresholds import Thresholds

# SPO's gradient grows with r^2, which f32 cannot hold for every finite r.
_LARGEST_PULL = 1e30


def weigh_by_sigmoid(signals: Signals, bounds: Thresholds) -> Array:
  """SAPO (arXiv:2511.20347): f(r) = 4 / tau sigmoid(tau (r - 1)).

  The gradient of f(r) A is M r A grad log pi with M = f'(r) = 4 p (1 - p),
  p = sigmoid(tau (r - 1)): 1 at r = 1 and falling to both sides.
  """
  tau = by_sign(signals, bounds.tau_low, bounds.tau_high)
  r = ratio(signals.log_probs, signals.anchor_log_probs)
  p = jax.nn.sigmoid(tau * (r - 1.0))
  return 4.0 * p * (1.0 - p)


def push_back_by_mass(signals: Signals, bounds: Thresholds) -> Array:
  """DRPO (arXiv:2606.09821): M = 1 - sign(A (r - 1)) |pi - mu| / delta.

  The gradient of  -A r + |A| mu (r - 1)^2 / (2 delta). M falls as a token
  moves away and turns negative, a pull back to the anchor, where it has moved
  by more than delta; toward the anchor it exceeds 1. Their code and recipe
  have delta 12.5, which leaves M near 1, their analysis that of DPPO.
  """
  moved = jnp.exp(signals.log_probs) - jnp.exp(signals.anchor_log_probs)
  delta = by_sign(signals, bounds.delta_low, bounds.delta_high)
  return 1.0 - jnp.sign(signals.advantages) * moved / delta


def push_back_by_ratio(signals: Signals, bounds: Thresholds) -> Array:
  """SPO: M = 1 - sign(A) (r - 1) / soft_clip.

  The gradient of  -A r + |A| (r - 1)^2 / (2 soft_clip): DRPO with a bound on
  the ratio in place of the mass. Numerics: r M is kept below 1e30.
  """
  r = ratio(signals.log_probs, signals.anchor_log_probs)
  keep = 1.0 - jnp.sign(signals.advantages) * (r - 1.0) / bounds.soft_clip
  largest = _LARGEST_PULL / jnp.maximum(r, 1.0)
  return jnp.clip(keep, -largest, largest)
