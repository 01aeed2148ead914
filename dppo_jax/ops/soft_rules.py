"""Rules that weigh every token instead of keeping or masking it.

Functions of rows of `trust_regions.TRUST_REGIONS`, where the hard ones are. M
may exceed 1 or be negative; a row says so by `signed`.
"""

import math

import jax
import jax.numpy as jnp

from dppo_jax.base import Array, Signals
from dppo_jax.ops.directions import by_sign
from dppo_jax.ops.ratios import ratio
from dppo_jax.thresholds import Thresholds

# SPO's gradient grows with r^2, which f32 cannot hold for every finite r.
_LARGEST_PULL = 1e30

# VESPO: of a log-ratio, at both ends, and of a sequence's at the lower one.
_LARGEST_LOG, _LEAST_LOG_SEQUENCE = 20.0, math.log(1e-8)
# e**80 is finite in f32: the bound of a weight without decay.
_LARGEST_LOG_WEIGHT = 80.0


def weigh_by_sigmoid(signals: Signals, bounds: Thresholds) -> Array:
  """SAPO (arXiv:2511.20347): f(r) = 4 / tau sigmoid(tau (r - 1)).

  The gradient of f(r) A is M r A grad log pi with M = f'(r) = 4 p (1 - p),
  p = sigmoid(tau (r - 1)): 1 at r = 1 and falling to both sides.
  """
  tau = by_sign(signals, bounds.tau_low, bounds.tau_high)
  r = ratio(signals.log_probs, signals.anchor_log_probs)
  p = jax.nn.sigmoid(tau * (r - 1.0))
  return 4.0 * p * (1.0 - p)


def weigh_by_sequence(signals: Signals, bounds: Thresholds) -> Array:
  """VESPO (arXiv:2602.10693): M = W^k exp(lambda (1 - W)), W = prod_t r_t.

  W is the ratio of the whole sequence, not normalized by its length. The
  gradient is M A grad log pi: M takes the place of an importance weight, so
  that `objective.importance` is 'none'. M is 1 at W = 1, largest at
  W = k / lambda and falls to 0 to both sides; k (power) and lambda (decay) go
  with the sign of A. Read of it: the abstract, its authors' published code,
  and TRL's, which agrees with it.

  Numerics: as in that code log r is clamped to +-20 and log W to [log 1e-8,
  20]. Without a decay log M is kept below 80.
  """
  log_ratio = signals.log_probs - signals.anchor_log_probs
  log_ratio = jnp.clip(log_ratio, -_LARGEST_LOG, _LARGEST_LOG)
  log_ratio = jnp.where(signals.mask, log_ratio, 0.0)
  log_w = jnp.sum(log_ratio, axis=1, keepdims=True)
  log_w = jnp.clip(log_w, _LEAST_LOG_SEQUENCE, _LARGEST_LOG)
  power = by_sign(signals, bounds.power_low, bounds.power_high)
  decay = by_sign(signals, bounds.decay_low, bounds.decay_high)
  log_weight = power * log_w - decay * jnp.expm1(log_w)
  return jnp.exp(jnp.minimum(log_weight, _LARGEST_LOG_WEIGHT))


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
