"""Verdicts on a paper's claims: one of four words.

A verdict depends on differences paired by seed, signed so that the paper
expects them above 0, and on an effect: the least mean difference that counts,
the same for 'more' and for 'alike'. p is from an exact, one-sided sign test:
the probability that at least as many seeds agree if both signs are equally
likely. It is 1/32 if all of five agree, 1/16 of four and 1/8 of three: with
fewer than five seeds every verdict is 'not distinguishable'.

  reproduced           p <= .05 that differences are above 0, and their mean is
                       at least the effect; for 'alike', p <= .05 that they are
                       above -effect, and also that they are below it
  opposite             the same for the reversed claim; for 'alike', two-sided
                       p <= .05 for equal signs, which needs six seeds, and a
                       mean of at least the effect in either direction
  not reproduced       p <= .05 that differences are below the effect; or that
                       they are above 0, while their mean is below the effect
  not distinguishable  none of these

Without a true difference, 'reproduced' and 'opposite' each occur in at most 5 %
of claims, 3 % with five seeds; there is no correction for multiple claims. A
claim of a multiple, or of a level, is tested by the margin above it; its
opposite is the multiple with the roles exchanged. Deterministic cases have no
p: the claim is reproduced if every case agrees. Intervals are 95 % t intervals
of the mean. Settings were tuned with seeds 0, 1 and 2; verdicts use others.
"""

from collections.abc import Sequence
import math
from typing import NamedTuple

import numpy as np

from dppo_jax.analysis import significance

REPRODUCED = 'reproduced'
NOT_REPRODUCED = 'not reproduced'
OPPOSITE = 'opposite'
NOT_DISTINGUISHABLE = 'not distinguishable'
WORDS = (REPRODUCED, NOT_REPRODUCED, OPPOSITE, NOT_DISTINGUISHABLE)


class ClaimVerdict(NamedTuple):
  """A claim and its verdict.

  Attributes:
    claim: of the paper, or of the notes of this repository.
    rule: condition for 'reproduced'.
    seen: measured numbers.
    verdict: one of `WORDS`.
    num_seeds: n.
    p: of the test that decided the verdict, or that the claim failed; NaN for
      deterministic cases.
  """

  claim: str
  rule: str
  seen: str
  verdict: str
  num_seeds: int
  p: float


Findings = Sequence[ClaimVerdict]


class Evidence(NamedTuple):
  """Numbers, one per seed, that decide a verdict.

  Attributes:
    claimed: above 0 if the claim holds.
    reverse: above 0 if the reversed claim holds; () if there is none.
    short: above 0 if the difference is below the effect.
  """

  claimed: Sequence[float] | np.ndarray
  reverse: Sequence[float] | np.ndarray
  short: Sequence[float] | np.ndarray


def of_evidence(found: Evidence, effect: float) -> tuple[str, float]:
  """Verdict, by the rules of this module, and the p that decided it.

  Args:
    found: the numbers.
    effect: least mean that counts, at least 0.
  """
  claimed = significance.sign_test(found.claimed)
  reverse = significance.sign_test(found.reverse)
  short = significance.sign_test(found.short)
  level = significance.LEVEL
  if claimed <= level:
    enough = np.mean(found.claimed) >= effect
    return (REPRODUCED if enough else NOT_REPRODUCED), claimed
  if reverse <= level and np.mean(found.reverse) >= effect:
    return OPPOSITE, reverse
  if short <= level:
    return NOT_REPRODUCED, short
  return NOT_DISTINGUISHABLE, claimed


def of_differences(differences: Sequence[float], effect: float) -> str:
  """Verdict on paired differences.

  Args:
    differences: one per seed, expected above 0.
    effect: least mean that counts, above 0.
  """
  return of_evidence(_plain(differences, effect), effect)[0]


def difference(
  claim: str,
  rule: str,
  differences: Sequence[float],
  effect: float,
  seen: str = '',
) -> ClaimVerdict:
  """Finding on paired differences, which are listed after `seen`.

  Args:
    claim: that they are above 0.
    rule: condition for 'reproduced'.
    differences: one per seed; without an effect both signs are equally likely.
    effect: least mean that counts, above 0.
    seen: further numbers.
  """
  word, p = of_evidence(_plain(differences, effect), effect)
  return finding(claim, rule, differences, seen, word, p)


def margin(
  claim: str,
  rule: str,
  margins: Sequence[float],
  seen: str = '',
  *,
  reverse: Sequence[float] = (),
) -> ClaimVerdict:
  """Finding on margins above a multiple or a level.

  Args:
    claim: that they are above 0.
    rule: condition for 'reproduced'.
    margins: one per seed.
    seen: further numbers.
    reverse: margins above the same multiple with the roles exchanged.
  """
  evidence = Evidence(margins, reverse, -np.asarray(margins, np.float64))
  word, p = of_evidence(evidence, 0.0)
  return finding(claim, rule, margins, seen, word, p)


def computed(
  claim: str,
  rule: str,
  margins: Sequence[float],
  seen: str,
  *,
  reverse: Sequence[float],
) -> ClaimVerdict:
  """Finding like `margin`, for deterministic cases: all must agree."""
  word = NOT_DISTINGUISHABLE
  if len(margins):
    word = OPPOSITE if np.min(reverse) > 0 else NOT_REPRODUCED
    word = REPRODUCED if np.min(margins) > 0 else word
  return ClaimVerdict(claim, rule, seen, word, len(margins), math.nan)


def finding(
  claim: str,
  rule: str,
  differences: Sequence[float] | np.ndarray,
  seen: str,
  word: str,
  p: float,
) -> ClaimVerdict:
  """Finding that lists its differences, their mean and its interval.

  Args:
    claim: see `Finding`.
    rule: see `Finding`.
    differences: one per seed.
    seen: text before them.
    word: the verdict.
    p: see `Finding`.
  """
  listed = ', '.join(f'{d:+.3g}' for d in differences) or 'none'
  mean, low, high = significance.mean_interval(differences)
  summary = f'mean {mean:+.3g}' if len(differences) else 'mean none'
  if math.isfinite(low):
    summary += f' [{low:+.3g}, {high:+.3g}]'
  parts = [seen] if seen else []
  parts.append(f'differences by seed {listed}; {summary}')
  return ClaimVerdict(claim, rule, '; '.join(parts), word, len(differences), p)


def _plain(differences: Sequence[float], effect: float) -> Evidence:
  found = np.asarray(differences, np.float64)
  return Evidence(found, -found, effect - found)
