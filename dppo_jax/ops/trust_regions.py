"""Which tokens an update may use: rows of `TRUST_REGIONS`.

A row takes the signals and the thresholds and returns the keep weight
M, f32 [B, T]. It knows nothing of losses. Which tokens a rule applies to at all
is an axis of its own, the same for every gated row: `directions.py`. Thresholds
are strict: masked when D > delta.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp

from dppo_jax.base import Array, KeepFn, Signals
from dppo_jax.ops import cppo, soft_rules
from dppo_jax.ops.directions import APPLIES_TO, applies_to, by_sign
from dppo_jax.ops.masking import row_max, row_mean
from dppo_jax.ops.ratios import ratio, sequence_ratio
from dppo_jax.thresholds import Thresholds

# ESTR: nats; keeps the quotient finite where the anchor is certain.
_LEAST_ENTROPY = 1e-6

Diagnostics = dict[str, Array]
DiagnoseFn = Callable[[Signals, Thresholds], Diagnostics]


def open_thresholds() -> Thresholds:
  """Thresholds that mask nothing, to be narrowed by `dataclasses.replace`.

  >>> open_thresholds().delta_high
  inf
  """
  opened: Any = {
    field.name: field.metadata['open']
    for field in dataclasses.fields(Thresholds)
  }
  return Thresholds(**opened)


def _delta(signals: Signals, bounds: Thresholds) -> Array:
  return by_sign(signals, bounds.delta_low, bounds.delta_high)


def _outside(r: Array, bounds: Thresholds) -> Array:
  return (r > 1.0 + bounds.clip_high) | (r < 1.0 - bounds.clip_low)


def keep_all(signals: Signals, bounds: Thresholds) -> Array:
  """M = 1: PG-IS; with a cap on the ratio, CISPO."""
  del bounds
  return jnp.ones_like(signals.advantages)


def keep_by_ratio(signals: Signals, bounds: Thresholds) -> Array:
  """PPO's clip: M = 0 where r leaves [1 - clip_low, 1 + clip_high].

  Applied to tokens that move away, this is the clip of either sign: r can
  only be too high for A > 0 and too low for A < 0.
  """
  r = ratio(signals.log_probs, signals.anchor_log_probs)
  return 1.0 - _outside(r, bounds)


def keep_by_dual_clip(signals: Signals, bounds: Thresholds) -> Array:
  """Dual clip (arXiv:1912.09729): PPO's, and M = 0 where A < 0 and r > c.

  The second test applies to tokens that move *toward* the anchor, so the row
  gates both tests itself; a sign or an exemption holds for either.
  """
  r = ratio(signals.log_probs, signals.anchor_log_probs)
  clipped = applies_to(signals, bounds) & _outside(r, bounds)
  either = dataclasses.replace(bounds, direction='any')
  dual = (signals.advantages < 0) & (r > bounds.dual_clip)
  dual &= applies_to(signals, either)
  return 1.0 - (clipped | dual)


def keep_by_divergence(signals: Signals, bounds: Thresholds) -> Array:
  """DPPO (eq. 12): M = 0 where D > delta."""
  return 1.0 - (signals.divergence > _delta(signals, bounds))


def mask_bad_updates(signals: Signals, bounds: Thresholds) -> Array:
  """Mask-delta (DPPO section 5.3): M = 0 where A < 0 and mu - pi >= delta.

  The one bound that is not strict; it reads delta_low and no divergence.
  """
  lost = jnp.exp(signals.anchor_log_probs) - jnp.exp(signals.log_probs)
  return 1.0 - ((signals.advantages < 0) & (lost >= bounds.delta_low))


def keep_by_prefix_budget(signals: Signals, bounds: Thresholds) -> Array:
  """CPPO with a fixed budget: M = 0 where Z_t > c_t."""
  prefix, budget = _prefix(signals, bounds), bounds.budget
  threshold = cppo.thresholds(prefix, _delta(signals, bounds), budget)
  return 1.0 - (prefix.weighted > threshold)


def keep_by_dynamic_budget(signals: Signals, bounds: Thresholds) -> Array:
  """CPPO with delta_b = clamp(P90(D), b, 2 b) of each sequence (eq. 22)."""
  prefix, budget = _prefix(signals, bounds), _dynamic(signals, bounds)
  threshold = cppo.thresholds(prefix, _delta(signals, bounds), budget)
  return 1.0 - (prefix.weighted > threshold)


def weigh_by_prefix_budget(signals: Signals, bounds: Thresholds) -> Array:
  """Soft CPPO: the gate min(1, 1 / x) in place of 0 or 1."""
  prefix = _prefix(signals, bounds)
  return cppo.soft_gate(prefix, _delta(signals, bounds), bounds.budget)


def keep_by_max(signals: Signals, bounds: Thresholds) -> Array:
  """TRM-Max: drops the sequence if max_t D > delta, for either sign of A."""
  worst = row_max(signals.divergence, signals.mask)
  return jnp.where(worst[:, None] > _delta(signals, bounds), 0.0, 1.0)


def keep_by_mean(signals: Signals, bounds: Thresholds) -> Array:
  """TRM-Avg: drops the sequence if mean_t D > delta, for either sign of A."""
  mean = row_mean(signals.divergence, signals.mask)
  return jnp.where(mean[:, None] > _delta(signals, bounds), 0.0, 1.0)


def keep_by_max_and_mean(signals: Signals, bounds: Thresholds) -> Array:
  """TRM-Max and -Avg: drops it if max_t D > delta or mean_t D > budget."""
  mean = row_mean(signals.divergence, signals.mask)[:, None]
  return keep_by_max(signals, bounds) * ~(mean > bounds.budget)


def keep_by_sequence_ratio(signals: Signals, bounds: Thresholds) -> Array:
  """GSPO: PPO's clip on the sequence ratio; drops or keeps whole sequences.

  Its direction is that of the sequence ratio, not of each token, so the row
  gates itself: A > 0 and s > 1 + clip_high, or A < 0 and s < 1 - clip_low.
  """
  s = sequence_ratio(signals.log_probs, signals.anchor_log_probs, signals.mask)
  too_high = (signals.advantages > 0) & (s > 1.0 + bounds.clip_high)
  too_low = (signals.advantages < 0) & (s < 1.0 - bounds.clip_low)
  return 1.0 - (too_high | too_low)


def keep_by_entropy(signals: Signals, bounds: Thresholds) -> Array:
  """ESTR (arXiv:2607.22186): M = 0 where (log r)^2 / H > tau_entropy.

  H is the anchor's entropy: a certain token may move less. Read of it: a
  summary of the rule; its constant beside H was not read.
  """
  if signals.anchor_entropy is None:
    raise ValueError(
      "trust_region.rule: 'estr' needs the anchor's entropy, TokenStats.entropy"
    )
  log_ratio = signals.log_probs - signals.anchor_log_probs
  entropy = jnp.maximum(signals.anchor_entropy, 0.0) + _LEAST_ENTROPY
  return 1.0 - (log_ratio**2 / entropy > bounds.tau_entropy)


def _prefix(signals: Signals, bounds: Thresholds) -> cppo.Prefix:
  weights = cppo.position_weights(
    signals.mask, bounds.w_min, bounds.weight_order
  )
  return cppo.accumulate(signals.divergence, weights, signals.mask)


def _dynamic(signals: Signals, bounds: Thresholds) -> Array:
  return cppo.dynamic_budget(signals.divergence, signals.mask, bounds.budget)


def _diagnose(
  signals: Signals, bounds: Thresholds, budget: Array | float
) -> Diagnostics:
  """`cppo/budget_effective` and `cppo/masked_by_budget`.

  The budget per position, and tokens masked by the prefix budget alone,
  which the bound of a single token would have kept.
  """
  prefix, delta = _prefix(signals, bounds), _delta(signals, bounds)
  threshold = cppo.thresholds(prefix, delta, budget)
  spent = (prefix.weighted > threshold) & (prefix.weighted <= delta)
  masked = spent & applies_to(signals, bounds)
  return {
    'cppo/budget_effective': jnp.broadcast_to(
      jnp.asarray(budget, jnp.float32), (masked.shape[0], 1)
    )
    * jnp.ones_like(delta),
    'cppo/masked_by_budget': masked.astype(jnp.float32),
  }


def _diagnose_fixed(signals: Signals, bounds: Thresholds) -> Diagnostics:
  return _diagnose(signals, bounds, bounds.budget)


def _diagnose_dynamic(signals: Signals, bounds: Thresholds) -> Diagnostics:
  return _diagnose(signals, bounds, _dynamic(signals, bounds))


class TrustRegion(NamedTuple):
  """A row of `TRUST_REGIONS`.

  Attributes:
    fn: the rule; where `gated`, its weight counts for `applies_to` tokens only.
    reads: fields of `Thresholds` it reads; where `gated`, those of `applies_to`
      are read as well.
    scope: what must be known before a token is decided: 'token', 'prefix' (the
      tokens before it, and how many there are in all) or 'sequence' (the whole
      completion).
    reads_divergence: whether D decides, so that its record is needed.
    gated: whether `applies_to` says which tokens it applies to.
    diagnose: the rule's own metrics, [B, T] each, averaged over tokens.
    divides_by: thresholds that it divides by.
    signed: whether M may leave [0, 1].
    reads_entropy: whether the anchor's entropy decides.
  """

  fn: KeepFn
  reads: tuple[str, ...]
  scope: Literal['token', 'prefix', 'sequence']
  reads_divergence: bool
  gated: bool = True
  diagnose: DiagnoseFn | None = None
  divides_by: tuple[str, ...] = ()
  signed: bool = False
  reads_entropy: bool = False


_DELTAS = ('delta_low', 'delta_high')
_CLIPS = ('clip_low', 'clip_high')
_CPPO = (*_DELTAS, 'w_min', 'weight_order', 'budget')

TRUST_REGIONS: Mapping[str, TrustRegion] = {
  'none': TrustRegion(keep_all, (), 'token', False),
  'ratio_clip': TrustRegion(keep_by_ratio, _CLIPS, 'token', False),
  'dual_clip': TrustRegion(
    keep_by_dual_clip,
    (*APPLIES_TO, *_CLIPS, 'dual_clip'),
    'token',
    False,
    gated=False,
  ),
  'divergence': TrustRegion(keep_by_divergence, _DELTAS, 'token', True),
  'mask_bad_updates': TrustRegion(
    mask_bad_updates, ('delta_low',), 'token', False
  ),
  'cppo': TrustRegion(
    keep_by_prefix_budget, _CPPO, 'prefix', True, diagnose=_diagnose_fixed
  ),
  'cppo_dynamic': TrustRegion(
    keep_by_dynamic_budget, _CPPO, 'sequence', True, diagnose=_diagnose_dynamic
  ),
  'cppo_soft': TrustRegion(
    weigh_by_prefix_budget, _CPPO, 'prefix', True, divides_by=_DELTAS
  ),
  'trm_max': TrustRegion(keep_by_max, _DELTAS, 'sequence', True, gated=False),
  'trm_mean': TrustRegion(keep_by_mean, _DELTAS, 'sequence', True, gated=False),
  'trm_max_mean': TrustRegion(
    keep_by_max_and_mean, (*_DELTAS, 'budget'), 'sequence', True, gated=False
  ),
  'gspo': TrustRegion(
    keep_by_sequence_ratio, _CLIPS, 'sequence', False, gated=False
  ),
  'sapo': TrustRegion(
    soft_rules.weigh_by_sigmoid,
    ('tau_low', 'tau_high'),
    'token',
    False,
    gated=False,
  ),
  'drpo': TrustRegion(
    soft_rules.push_back_by_mass,
    _DELTAS,
    'token',
    False,
    gated=False,
    divides_by=_DELTAS,
    signed=True,
  ),
  'spo': TrustRegion(
    soft_rules.push_back_by_ratio,
    ('soft_clip',),
    'token',
    False,
    gated=False,
    signed=True,
  ),
  'vespo': TrustRegion(
    soft_rules.weigh_by_sequence,
    ('power_low', 'power_high', 'decay_low', 'decay_high'),
    'sequence',
    False,
    gated=False,
    signed=True,
  ),
  'estr': TrustRegion(
    keep_by_entropy, ('tau_entropy',), 'token', False, reads_entropy=True
  ),
}


def keep_weights(rule: str, signals: Signals, bounds: Thresholds) -> Array:
  """M of the named rule: f32 [B, T] without gradient, 0.0 where masked.

  Args:
    rule: a key of `TRUST_REGIONS`.
    signals: measurements; nothing of it is differentiated.
    bounds: thresholds.

  >>> one = jnp.ones((1, 1))
  >>> signals = Signals(
  ...   advantages=one, log_probs=jnp.log(0.9 * one),
  ...   anchor_log_probs=jnp.log(0.5 * one), divergence=0.4 * one,
  ...   mask=one > 0)
  >>> bounds = dataclasses.replace(open_thresholds(), delta_high=0.2)
  >>> keep_weights('divergence', signals, bounds).tolist()
  [[0.0]]
  """
  chex.assert_rank(jax.tree.leaves(signals), 2)
  chex.assert_equal_shape(jax.tree.leaves(signals))
  signals = jax.lax.stop_gradient(signals)
  row = TRUST_REGIONS[rule]
  keep = row.fn(signals, bounds)
  if row.gated:
    keep = jnp.where(applies_to(signals, bounds), keep, 1.0)
  return jnp.where(signals.mask, keep, 0.0).astype(jnp.float32)


def diagnostics(rule: str, signals: Signals, bounds: Thresholds) -> Diagnostics:
  """The rule's own metrics by token, f32 [B, T], 0.0 where masked."""
  diagnose = TRUST_REGIONS[rule].diagnose
  if diagnose is None:
    return {}
  values = diagnose(jax.lax.stop_gradient(signals), bounds)
  return {k: jnp.where(signals.mask, v, 0.0) for k, v in values.items()}
