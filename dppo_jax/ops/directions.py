"""Which tokens a rule applies to, the same for every gated row.

  away:       A (pi - anchor) > 0      of the sampled token
  predictive: A dD / d eta > 0         see `divergences.Rate`
  any:        all tokens

A token that moves toward the anchor, or has A = 0, is not subject to a
one-sided rule and is kept.
"""

import jax.numpy as jnp

from dppo_jax.base import Array, Signals
from dppo_jax.thresholds import Thresholds

# Fields that say which tokens a gated rule applies to.
APPLIES_TO = ('direction', 'advantage_sign', 'alpha_low', 'alpha_high')


def by_sign(signals: Signals, low: float, high: float) -> Array:
  """`high` for tokens with A > 0, `low` for the others; f32 [B, T]."""
  return jnp.where(signals.advantages > 0, high, low)


def moves_away(signals: Signals) -> Array:
  """Whether the update pushes pi further from the anchor; bool [B, T]."""
  moved = signals.log_probs - signals.anchor_log_probs
  return signals.advantages * moved > 0


def raises_divergence(signals: Signals) -> Array:
  """Whether the update raises D to first order; bool [B, T]."""
  if signals.rate is None:
    raise ValueError(
      "trust_region.direction: 'predictive' needs the rate of the divergence,"
      ' which Top-K and exact ones have'
    )
  return signals.advantages * signals.rate > 0


def applies_to(signals: Signals, bounds: Thresholds) -> Array:
  """Tokens that a gated rule applies to; others are kept; bool [B, T]."""
  negative, positive = signals.advantages < 0, signals.advantages > 0
  if bounds.direction == 'away':
    applied = moves_away(signals)
  elif bounds.direction == 'predictive':
    applied = raises_divergence(signals)
  else:
    applied = jnp.ones_like(negative)
  if bounds.advantage_sign == 'negative':
    applied &= negative
  elif bounds.advantage_sign == 'positive':
    applied &= positive
  anchor = jnp.exp(signals.anchor_log_probs)
  exempt = (negative & (anchor < bounds.alpha_low)) | (
    positive & (anchor < bounds.alpha_high)
  )
  return applied & ~exempt
