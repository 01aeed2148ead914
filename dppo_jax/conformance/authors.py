"""The modes of the authors' codes as rows of ours, and their names in files.

A row says which of our rules, divergences, forms and options give what a mode
of theirs gives. Where the default of this package differs on purpose, the row
names the option that reproduces theirs.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dppo_jax.base import Array, DivergenceFn
from dppo_jax.ops import divergences, trust_regions

# Their log-ratios are clamped at 20 (Stable-RL, above; verl, on both sides)
# and at 10 (GSPO, above) before the exponential.
_LARGEST, _SMALLEST, _LARGEST_SEQUENCE = (
  math.exp(20.0),
  math.exp(-20.0),
  math.exp(10.0),
)
ValueFn = Callable[[Array, Array, Array, trust_regions.Thresholds], Array]


class Row(NamedTuple):
  """What a mode of theirs is here.

  Attributes:
    rule: a key of `TRUST_REGIONS`.
    bounds: its thresholds.
    divergence: with the numerics of their code.
    anchor: whose policy the rule compares, where the file does not say.
    form: a key of `FORMS`.
    importance: 'token' or 'sequence'.
    ratio_floor: truncation of the importance weight below.
    ratio_cap: and above, where the file does not say.
    aggregation: a key of `AGGREGATIONS`, where the file does not say.
    published_value: gives their loss of each token where its value, though not
      its gradient, differs from that of our form.
  """

  rule: str
  bounds: trust_regions.Thresholds
  divergence: DivergenceFn = divergences.binary_tv
  anchor: str = 'rollout'
  form: str = 'score'
  importance: str = 'token'
  ratio_floor: float = 0.0
  ratio_cap: float = _LARGEST
  aggregation: str = 'token_mean'
  published_value: ValueFn | None = None


_bounds = functools.partial(
  dataclasses.replace, trust_regions.open_thresholds()
)


def offset_complement(log_probs: Array) -> Array:
  """log(1 - p + 1e-8), as Stable-RL and verl have it in their binary KL."""
  # The compiler would add up the constants, and 1 + 1e-8 is 1 in f32.
  rest = jax.lax.optimization_barrier(1.0 - jnp.exp(log_probs))
  return jnp.log(rest + 1e-8)


def clamped_complement(log_probs: Array) -> Array:
  """log(1 - min(p, 1 - 1e-7)), as TRL has it in its binary KL."""
  return jnp.log1p(-jnp.minimum(jnp.exp(log_probs), 1.0 - 1e-7))


def clipped_value(
  ratios: Array,
  advantages: Array,
  keep: Array,
  bounds: trust_regions.Thresholds,
) -> Array:
  """-min(r A, clip(r) A), and with dual clip never above -c A: [B, T].

  A clipped surrogate counts a masked token at the ratio at which it was
  clipped, a constant that carries no gradient; our forms count it as 0.
  """
  low = jnp.where(
    ratios > bounds.dual_clip, bounds.dual_clip, 1.0 - bounds.clip_low
  )
  edge = jnp.where(advantages > 0, 1.0 + bounds.clip_high, low)
  return -advantages * jnp.where(keep > 0, ratios, edge)


def soft_value(
  ratios: Array,
  advantages: Array,
  keep: Array,
  bounds: trust_regions.Thresholds,
) -> Array:
  """-f(r) A with SAPO's f(r) = 4 / tau sigmoid(tau (r - 1)): [B, T].

  Our rule is f'(r), which multiplies the gradient; f itself is never needed.
  """
  del keep
  tau = jnp.where(advantages > 0, bounds.tau_high, bounds.tau_low)
  return -advantages * 4.0 / tau * jax.nn.sigmoid(tau * (ratios - 1.0))


_offset_kl = functools.partial(
  divergences.binary_kl, complement=offset_complement
)
_clamped_kl = functools.partial(
  divergences.binary_kl, complement=clamped_complement
)
tiny_other_kl = functools.partial(divergences.topk_kl, other_floor=1e-12)


def _divergence(
  divergence: DivergenceFn, low: float, high: float, **more: Any
) -> Row:
  bounds = _bounds(delta_low=low, delta_high=high)
  return Row('divergence', bounds, divergence, **more)


def _clip(**given: Any) -> Row:
  return Row('ratio_clip', _bounds(**({'clip_low': 0.2} | given)))


def _verl_divergence(divergence: DivergenceFn, delta: float) -> Row:
  bounds = _bounds(delta_low=delta, delta_high=delta)
  return Row(
    'divergence', bounds, divergence, ratio_floor=_SMALLEST, ratio_cap=20.0
  )


def _gspo(low: float, high: float) -> Row:
  return Row(
    'gspo',
    _bounds(clip_low=low, clip_high=high),
    form='surrogate',
    importance='sequence',
    ratio_cap=_LARGEST_SEQUENCE,
    aggregation='sequence_mean_token_mean',
    published_value=clipped_value,
  )


def _cppo(delta: float, w_min: float, least: float) -> Row:
  bounds = _bounds(delta_low=delta, delta_high=delta, w_min=w_min, budget=least)
  return Row('cppo_dynamic', bounds)


STABLE_RL: Mapping[str, Row] = {
  'dppo_binary_tv': _divergence(divergences.binary_tv, 0.15, 0.15),
  'dppo_binary_tv_recompute': _divergence(
    divergences.binary_tv, 0.15, 0.15, anchor='recomputed'
  ),
  'dppo_binary_kl': _divergence(_offset_kl, 0.05, 0.05),
  'dppo_binary_kl_recompute': _divergence(
    _offset_kl, 0.05, 0.05, anchor='recomputed'
  ),
  'dppo_topk_tv': _divergence(divergences.topk_tv, 0.15, 0.2),
  'dppo_topk_kl': _divergence(tiny_other_kl, 0.05, 0.08),
  'ppo': _clip(clip_high=0.28),
  'ppo_recompute': _clip(clip_high=0.28)._replace(anchor='recomputed'),
  'ppo_ablation_positive': _clip(clip_high=0.28, alpha_high=0.1),
  'ppo_ablation_negative': _clip(clip_high=0.28, alpha_low=0.1),
  'ppo_ablation_both': _clip(clip_high=0.28, alpha_low=0.1, alpha_high=0.1),
  'pg_no_mask': Row('none', _bounds()),
}
TRL: Mapping[str, Row] = {
  'binary_tv': _divergence(divergences.binary_tv, 0.15, 0.15),
  'binary_kl': _divergence(_clamped_kl, 0.05, 0.05),
  'topk_tv': _divergence(divergences.topk_tv, 0.15, 0.2),
  'topk_kl': _divergence(tiny_other_kl, 0.05, 0.08),
}
VERL: Mapping[str, Row] = {
  'gspo': _gspo(3e-4, 4e-4),
  'gspo_wide': _gspo(0.05, 0.1),
  'sapo': Row(
    'sapo',
    _bounds(tau_high=1.0, tau_low=1.05),
    form='surrogate',
    aggregation='sequence_mean_token_mean',
    published_value=soft_value,
  ),
  # Its low side, 1 - 10, is below every ratio.
  'cispo': Row('none', _bounds(), ratio_floor=_SMALLEST, ratio_cap=1.2),
  'dppo_tv': _verl_divergence(divergences.binary_tv, 0.15),
  'dppo_kl': _verl_divergence(_offset_kl, 0.05),
  'vanilla_dual_clip': Row(
    'dual_clip',
    _bounds(clip_low=0.2, clip_high=0.28, dual_clip=3.0),
    form='surrogate',
    published_value=clipped_value,
  ),
}
UNIRL: Mapping[str, Row] = {
  'default': _cppo(0.2, 0.8, 0.02),
  'dense': _cppo(0.15, 0.8, 0.015),
  'w1': _cppo(0.15, 1.0, 0.02),
  'tight': _cppo(0.1, 0.6, 0.005),
}
MODES: Mapping[str, Mapping[str, Row]] = {
  'stable_rl': STABLE_RL,
  'trl': TRL,
  'verl': VERL,
  'unirl': UNIRL,
}
# Their tests ask `A > 0`, so that A = 0 gets the low one.
ZERO_IS_NEGATIVE = frozenset({'stable_rl', 'trl'})
_ANCHORS = {'anchor=rollout': 'rollout', 'anchor=old': 'recomputed'}
_AGGREGATIONS = {
  'token-mean': 'token_mean',
  'seq-mean-token-mean': 'sequence_mean_token_mean',
  'seq-mean-token-sum': 'sequence_mean_token_sum',
  'seq-mean-token-sum-norm': 'sequence_mean_token_sum_norm',
}
_KINDS = {'loss': 'loss', 'grad_pi_logits': 'gradient'}


class Result(NamedTuple):
  """What the name of a result says.

  Attributes:
    implementation: a key of `MODES`.
    mode: a key of its table.
    kind: 'mask', 'loss' or 'gradient'.
    anchor: 'rollout' or 'recomputed': whose policy the rule compares.
    weight_anchor: and whose the importance weight divides by.
    ratio_cap: C.
    aggregation: a key of `masking.AGGREGATIONS`.
  """

  implementation: str
  mode: str
  kind: str
  anchor: str
  weight_anchor: str = 'rollout'
  ratio_cap: float = math.inf
  aggregation: str = 'token_mean'

  @property
  def row(self) -> Row:
    """The row of the mode."""
    return MODES[self.implementation][self.mode]


def parse(key: str) -> Result | None:
  """What the name of a result says; None where it names nothing known.

  >>> parse('verl/loss/gspo/anchor=old').anchor
  'recomputed'
  """
  known: dict[str, Any] = {}
  match key.split('/'):
    case [('stable_rl' | 'trl') as implementation, 'mask', mode]:
      known['kind'] = 'mask'
    case ['unirl' as implementation, 'cppo_mask', mode]:
      known['kind'] = 'mask'
    case ['stable_rl' as implementation, quantity, mode, cap, aggregation]:
      known['kind'] = _KINDS.get(quantity)
      known['ratio_cap'] = _cap(cap)
      known['aggregation'] = _AGGREGATIONS.get(aggregation)
    case ['verl' as implementation, quantity, mode, anchor]:
      known['kind'] = _KINDS.get(quantity)
      known['anchor'] = _ANCHORS.get(anchor)
      known['weight_anchor'] = known['anchor']
    case _:
      return None
  row = MODES[implementation].get(mode)
  if row is None or None in known.values():
    return None
  known = {'anchor': row.anchor, 'aggregation': row.aggregation} | known
  return Result(implementation, mode, **known)


def partners(key: str, result: Result) -> Iterator[str]:
  """Names of the arrays that a loss or a gradient makes no sense without."""
  if result.kind == 'gradient':
    yield key.replace('/grad_pi_logits/', '/loss/', 1)
  elif result.implementation == 'verl':
    yield key.replace('/loss/', '/grad_pi_logits/', 1)
  if result.implementation == 'stable_rl':
    yield f'stable_rl/mask/{result.mode}'


def _cap(text: str) -> float | None:
  """C of 'C=5'."""
  name, _, number = text.partition('=')
  try:
    cap = float(number)
  except ValueError:
    return None
  return cap if name == 'C' and cap > 0 else None
