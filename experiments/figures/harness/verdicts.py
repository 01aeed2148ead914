"""What was seen against what a paper says, in one of four words.

A verdict is of differences paired by seed, signed so that the paper expects
them above 0, and of an effect: the least mean difference that counts, the same
for 'more' and for 'alike'. p is of an exact, one-sided sign test: how often so
many seeds or more agree if either sign is as likely. It is 1/32 where all of
five agree, 1/16 of four and 1/8 of three: from fewer than five seeds every
word is 'not distinguishable'.

  reproduced           p <= .05 that differences are above 0, and their mean is
                       at least the effect; for 'alike', p <= .05 that they are
                       above -effect, and also that they are below it
  opposite             the same of the reversed claim; for 'alike', two-sided
                       p <= .05 that the sign is one, which takes six seeds,
                       and a mean of at least the effect either way
  not reproduced       p <= .05 that differences are below the effect; or that
                       they are above 0, while their mean is below the effect
  not distinguishable  none of these

Without a difference 'reproduced' and 'opposite' each come up in at most 5 % of
such claims, 3 % at five seeds; nothing is corrected for the number of claims.
A claim of a multiple, or of a level, is one of what is left over it, and its
opposite is that multiple the other way round. What is computed without chance
has no p: it is reproduced if every case agrees. Intervals are 95 % t intervals
of the mean. Settings were chosen with seeds 0, 1 and 2, verdicts are of others.
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
  """A claim and what became of it.

  Attributes:
    claim: of the paper, or of the notes of this repository.
    rule: what must hold for it to count as reproduced.
    seen: the numbers.
    verdict: one of `WORDS`.
    num_seeds: n.
    p: of the test that the verdict rests on, or that the claim failed; NaN
      where nothing is left to chance.
  """

  claim: str
  rule: str
  seen: str
  verdict: str
  num_seeds: int
  p: float


Findings = Sequence[ClaimVerdict]


class Evidence(NamedTuple):
  """Numbers, one a seed, from which a word is found.

  Attributes:
    claimed: above 0 where the claim holds.
    reverse: above 0 where the reversed claim holds; () if it has none.
    short: above 0 where what is claimed is below the effect.
  """

  claimed: Sequence[float] | np.ndarray
  reverse: Sequence[float] | np.ndarray
  short: Sequence[float] | np.ndarray


def of_evidence(found: Evidence, effect: float) -> tuple[str, float]:
  """The verdict, by the rule of this module, and the p that it rests on.

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
  """The verdict on one number of one seed against another.

  Args:
    differences: one a seed, expected above 0.
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
  """A finding about paired differences; shows them after `seen`.

  Args:
    claim: that they are above 0.
    rule: what must hold.
    differences: one a seed; without a difference either sign is as likely.
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
  """A finding about what is left over a multiple or a level.

  Args:
    claim: that it is above 0.
    rule: what must hold.
    margins: what is left, one a seed.
    seen: further numbers.
    reverse: what is left over the same multiple the other way round.
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
  """As `margin`, of cases that are computed without chance: all must agree."""
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
  """A finding that shows its differences, their mean and its interval.

  Args:
    claim: see `ClaimVerdict`.
    rule: see there.
    differences: one a seed.
    seen: what is shown before them.
    word: the verdict.
    p: see there.
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
