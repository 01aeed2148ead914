"""Which tokens an update may use: rows of `TRUST_REGIONS`.

A row takes what was measured and the thresholds and returns the keep weight
M, f32 [B, T]. It knows nothing of losses. The sign of the advantage and the
sampled token decide the direction in every row:

  away = A * (pi - anchor) > 0

and a token that moves toward the anchor, or has A = 0, is always kept. The
bounds are strict: a token is masked when D > delta.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Literal, NamedTuple

import chex
import flax.struct
import jax
import jax.numpy as jnp

from dppo_jax.base import Array

# e**80 is finite in f32; beyond it a ratio says nothing more.
MAX_LOG_RATIO = 80.0


@flax.struct.dataclass(kw_only=True)
class Signals:
  """What a rule may look at; every array f32 [B, T] unless said.

  Attributes:
    advantages: A.
    log_probs: log pi of the sampled token.
    anchor_log_probs: the anchor's log-prob of it.
    divergence: D between the anchor and pi, unit of its row.
    mask: bool [B, T], completion tokens.
  """

  advantages: Array
  log_probs: Array
  anchor_log_probs: Array
  divergence: Array
  mask: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounds:
  """Thresholds of the rules, one for each sign of the advantage.

  Attributes:
    delta_low: bound on the divergence for A < 0.
    delta_high: bound on the divergence for A > 0.
    clip_low: ratio clip: a token with A < 0 is masked below 1 - clip_low.
    clip_high: a token with A > 0 is masked above 1 + clip_high.
  """

  delta_low: float
  delta_high: float
  clip_low: float
  clip_high: float


KeepFn = Callable[[Signals, Bounds], Array]


def ratio(log_probs: Array, anchor_log_probs: Array) -> Array:
  """r = pi / anchor, from log-probs; finite whatever they are."""
  log_ratio = log_probs - anchor_log_probs
  return jnp.exp(jnp.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO))


def moves_away(signals: Signals) -> Array:
  """Whether the update pushes pi further from the anchor; bool [B, T]."""
  moved = signals.log_probs - signals.anchor_log_probs
  return signals.advantages * moved > 0


def keep_all(signals: Signals, bounds: Bounds) -> Array:
  """M = 1: the importance-weighted policy gradient (PG-IS)."""
  del bounds
  return jnp.ones_like(signals.advantages)


def keep_by_ratio(signals: Signals, bounds: Bounds) -> Array:
  """PPO's clip as a mask.

  M = 0 where A > 0 and r > 1 + clip_high, or A < 0 and r < 1 - clip_low.
  """
  r = ratio(signals.log_probs, signals.anchor_log_probs)
  too_high = (signals.advantages > 0) & (r > 1.0 + bounds.clip_high)
  too_low = (signals.advantages < 0) & (r < 1.0 - bounds.clip_low)
  return 1.0 - (too_high | too_low)


def keep_by_divergence(signals: Signals, bounds: Bounds) -> Array:
  """DPPO (eq. 12): M = 0 where the update moves away and D > delta."""
  delta = jnp.where(signals.advantages > 0, bounds.delta_high, bounds.delta_low)
  return 1.0 - (moves_away(signals) & (signals.divergence > delta))


class TrustRegion(NamedTuple):
  """A row of `TRUST_REGIONS`.

  Attributes:
    fn: the rule.
    reads_divergence: whether D decides, so that its record is needed.
    scope: 'token', 'prefix' (causal along the sequence) or 'sequence'.
  """

  fn: KeepFn
  reads_divergence: bool
  scope: Literal['token', 'prefix', 'sequence']


TRUST_REGIONS: Mapping[str, TrustRegion] = {
  'none': TrustRegion(keep_all, False, 'token'),
  'ratio_clip': TrustRegion(keep_by_ratio, False, 'token'),
  'divergence': TrustRegion(keep_by_divergence, True, 'token'),
}


def keep_weights(rule: str, signals: Signals, bounds: Bounds) -> Array:
  """M of the named rule: f32 [B, T] without gradient, 0.0 where masked.

  Raises:
    KeyError: `rule` is not a row (configs are checked long before).
  """
  chex.assert_rank(jax.tree.leaves(signals), 2)
  chex.assert_equal_shape(jax.tree.leaves(signals))
  signals = jax.lax.stop_gradient(signals)
  keep = TRUST_REGIONS[rule].fn(signals, bounds)
  return jnp.where(signals.mask, keep, 0.0).astype(jnp.float32)
