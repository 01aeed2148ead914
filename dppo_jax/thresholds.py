"""Thresholds of the rules: defaults that mask nothing, and allowed ranges."""

import dataclasses
from dataclasses import field
import math
from typing import Any, Literal


def number(
  opened: float, low: float, high: float = math.inf, *, closed: bool = True
) -> dict[str, Any]:
  """Metadata of a field of `Thresholds` that is a number.

  `opened` masks nothing, see `trust_regions.open_thresholds`; a config allows
  numbers from `low`, itself where `closed`, to `high`.
  """
  return {'open': opened, 'range': (low, closed, high)}


def one_of(opened: str, *others: str) -> dict[str, Any]:
  """Metadata of a field of `Thresholds` that is a name; the open one first."""
  return {'open': opened, 'choices': (opened, *others)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
  """Thresholds of the rules, and the tokens they apply to.

  A field says which values it may have and which one masks nothing; the checks
  of a config read it. `trust_region.NAME` of the config is the field NAME.

  Attributes:
    direction: 'away' applies to tokens whose probability moves from the
      anchor's, 'predictive' to those whose update raises the divergence, 'any'
      to all of them (sign-blind).
    advantage_sign: applies to tokens with A of that sign: 'both', 'negative' or
      'positive'.
    alpha_low: tokens with A < 0 whose anchor probability is below this are
      exempt (relax-low); 0 exempts none.
    alpha_high: the same for A > 0 (relax-high).
    delta_low: bound on the divergence for A < 0.
    delta_high: bound on the divergence for A > 0.
    clip_low: ratio clip: a token is masked below 1 - clip_low.
    clip_high: a token is masked above 1 + clip_high.
    dual_clip: dual clip: a token with A < 0 is masked above this ratio.
    w_min: CPPO: weight of the last position.
    weight_order: CPPO: 'linear' or 'shuffled' position weights.
    budget: CPPO: delta_b per position, or the least one where it is dynamic;
      inf switches the prefix budget off. TRM-Max and -Avg: bound on the mean.
    tau_low: SAPO: temperature for A < 0.
    tau_high: SAPO: temperature for A > 0.
    soft_clip: SPO: step of the ratio that brings M to 0.
    power_low: VESPO: exponent of the sequence's ratio for A < 0; the larger,
      the less weight has a sequence that became less likely.
    power_high: the same for A > 0.
    decay_low: VESPO: rate of the exponential decay in the sequence's ratio for
      A < 0; the larger, the less weight has one that became more likely.
    decay_high: the same for A > 0.
    tau_entropy: ESTR: bound on the squared log-ratio over the entropy.
  """

  direction: Literal['away', 'predictive', 'any'] = field(
    metadata=one_of('away', 'predictive', 'any')
  )
  advantage_sign: Literal['both', 'negative', 'positive'] = field(
    metadata=one_of('both', 'negative', 'positive')
  )
  alpha_low: float = field(metadata=number(0.0, 0.0, 1.0))
  alpha_high: float = field(metadata=number(0.0, 0.0, 1.0))
  delta_low: float = field(metadata=number(math.inf, 0.0))
  delta_high: float = field(metadata=number(math.inf, 0.0))
  clip_low: float = field(metadata=number(1.0, 0.0, 1.0))
  clip_high: float = field(metadata=number(math.inf, 0.0))
  dual_clip: float = field(metadata=number(math.inf, 1.0, closed=False))
  w_min: float = field(metadata=number(1.0, 0.0, 1.0, closed=False))
  weight_order: Literal['linear', 'shuffled'] = field(
    metadata=one_of('linear', 'shuffled')
  )
  budget: float = field(metadata=number(math.inf, 0.0))
  tau_low: float = field(metadata=number(0.0, 0.0, closed=False))
  tau_high: float = field(metadata=number(0.0, 0.0, closed=False))
  soft_clip: float = field(metadata=number(math.inf, 0.0, closed=False))
  power_low: float = field(metadata=number(0.0, 0.0, 100.0))
  power_high: float = field(metadata=number(0.0, 0.0, 100.0))
  decay_low: float = field(metadata=number(0.0, 0.0, 100.0))
  decay_high: float = field(metadata=number(0.0, 0.0, 100.0))
  tau_entropy: float = field(metadata=number(math.inf, 0.0))
