"""What was seen against what a paper says, in one of four words.

A verdict is of paired differences, one a seed, signed so that the paper
expects them above 0, and of the least mean difference that counts as an
effect:

  reproduced           every seed has the expected sign, and their mean is at
                       least the effect
  opposite             every seed has the other sign, and their mean is at
                       most minus the effect
  not distinguishable  the signs differ, or there are fewer than two seeds
  not reproduced       every seed has one sign, but the effect is too small
"""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import NamedTuple

import numpy as np

from dppo_jax.runtime.figures.points import Points

REPRODUCED = 'reproduced'
NOT_REPRODUCED = 'not reproduced'
OPPOSITE = 'opposite'
NOT_DISTINGUISHABLE = 'not distinguishable'
GROUPINGS: Mapping[str, Callable[..., np.floating]] = {
  'least': np.min,
  'most': np.max,
  'mean': np.mean,
}
Group = str | Mapping[str, Sequence[str]]
WORDS = (REPRODUCED, NOT_REPRODUCED, OPPOSITE, NOT_DISTINGUISHABLE)


class Finding(NamedTuple):
  """A claim and what became of it.

  Attributes:
    claim: of the paper, or of the notes of this repository.
    rule: what must hold for it to count as reproduced.
    seen: the numbers.
    verdict: one of `WORDS`.
    num_seeds: n.
  """

  claim: str
  rule: str
  seen: str
  verdict: str
  num_seeds: int


def of_differences(differences: Sequence[float], effect: float) -> str:
  """The verdict, by the rule of this module.

  Args:
    differences: one a seed, expected above 0.
    effect: least mean that counts, at least 0.
  """
  found = np.asarray(differences, np.float64)
  if found.size < 2 or not np.isfinite(found).all():
    return NOT_DISTINGUISHABLE
  if not ((found > 0).all() or (found < 0).all()):
    return NOT_DISTINGUISHABLE
  if abs(found.mean()) < effect:
    return NOT_REPRODUCED
  return REPRODUCED if found.mean() > 0 else OPPOSITE


def difference(
  claim: str,
  rule: str,
  differences: Sequence[float],
  effect: float,
  seen: str = '',
) -> Finding:
  """A finding about paired differences; shows them after `seen`."""
  listed = ', '.join(f'{d:+.3g}' for d in differences) or 'none'
  mean = f'{np.mean(differences):+.3g}' if len(differences) else 'none'
  parts = [seen] if seen else []
  parts.append(f'differences by seed {listed}; mean {mean}')
  verdict = of_differences(differences, effect)
  return Finding(claim, rule, '; '.join(parts), verdict, len(differences))


def contrast(
  points: Points,
  claim: str,
  column: str,
  high: Group,
  low: Group,
  effect: float,
  *,
  where: Mapping[str, str] | None = None,
  levels: tuple[float, float] = (-math.inf, math.inf),
) -> Finding:
  """Two groups of variants compared: a column's mean over a run, by seed.

  Args:
    points: with columns variant and seed.
    claim: that the first group is higher.
    column: of numbers.
    high: a variant; or how a group is taken together ('least', 'most' or
      'mean') -> its variants.
    low: the same of the group that is expected to be lower.
    effect: least mean difference that counts.
    where: further columns and their values.
    levels: mean over seeds that the first group must have at least, and the
      second at most.

  Returns:
    Its differences are of the seeds that every variant has.
  """
  how_high, highs = _as_group(high)
  how_low, lows = _as_group(low)
  seeds = _shared_seeds(points, (*highs, *lows), column, where or {})
  upper, lower = (
    np.array(
      [
        GROUPINGS[how](
          [
            float(points.by_seed(column, variant=v, seed=s, **(where or {}))[0])
            for v in group
          ]
        )
        for s in seeds
      ]
    )
    for how, group in ((how_high, highs), (how_low, lows))
  )
  rule = f'{_group(how_high, highs)} − {_group(how_low, lows)} ≥ {effect:g}'
  if math.isfinite(levels[0]):
    rule += f', the first ≥ {levels[0]:g}, the second ≤ {levels[1]:g}'
  seen = ''
  if seeds:
    seen = f'{upper.mean():.3g} against {lower.mean():.3g}'
  found = difference(claim, rule, (upper - lower).tolist(), effect, seen)
  missed = bool(seeds) and (
    upper.mean() < levels[0] or lower.mean() > levels[1]
  )
  if found.verdict == REPRODUCED and missed:
    return found._replace(verdict=NOT_REPRODUCED)
  return found


def alike(
  points: Points, claim: str, column: str, one: str, other: str, most: float
) -> Finding:
  """A finding about two variants that are said to differ by little.

  Its differences are what is left of `most`, the largest that counts as alike.
  """
  seeds = _shared_seeds(points, (one, other), column, {})
  both = [
    [points.by_seed(column, variant=v, seed=s)[0] for s in seeds]
    for v in (one, other)
  ]
  left = [most - abs(a - b) for a, b in zip(*both, strict=True)]
  seen = ''
  if seeds:
    seen = f'{np.mean(both[0]):.3g} and {np.mean(both[1]):.3g}'
  rule = f'{most:g} − |{one} − {other}| > 0'
  return difference(claim, rule, left, 0.0, seen)


def _shared_seeds(
  points: Points,
  variants: Sequence[str],
  column: str,
  where: Mapping[str, str],
) -> list[str]:
  """Seeds of which every variant has a number."""
  return [
    seed
    for seed in points.values('seed')
    if all(
      points.by_seed(column, variant=v, seed=seed, **where).size
      for v in variants
    )
  ]


def _as_group(group: Group) -> tuple[str, Sequence[str]]:
  if isinstance(group, str):
    return 'mean', (group,)
  ((how, variants),) = group.items()
  return how, variants


def _group(how: str, variants: Sequence[str]) -> str:
  named = ', '.join(variants)
  return named if len(variants) == 1 else f'{how} of {named}'
