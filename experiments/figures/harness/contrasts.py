"""Verdicts on variants of a run: more of a column, or alike in it."""

from collections.abc import Callable, Mapping, Sequence
import math

import numpy as np

from dppo_jax.analysis import significance
from dppo_jax.analysis.table import Points
from dppo_jax.experiments.figures.harness import verdicts
from dppo_jax.experiments.figures.harness.verdicts import ClaimVerdict, Evidence

GROUPINGS: Mapping[str, Callable[..., np.ndarray]] = {
  'least': np.min,
  'most': np.max,
  'mean': np.mean,
}
_REVERSED = {'least': 'most', 'most': 'least', 'mean': 'mean'}
Group = str | Mapping[str, Sequence[str]]


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
) -> ClaimVerdict:
  """Finding on two groups of variants: a column's mean over a run, per seed.

  Args:
    points: with columns variant and seed.
    claim: that the first group is higher.
    column: of numbers.
    high: a variant; or a reduction over a group ('least', 'most' or 'mean') ->
      its variants.
    low: the same for the group that is expected to be lower.
    effect: least mean difference that counts.
    where: further columns and their values.
    levels: mean over seeds that the first group must have at least, and the
      second at most.

  Returns:
    Finding on the seeds that every variant has.
  """
  how_high, highs = _as_group(high)
  how_low, lows = _as_group(low)
  seeds = _shared_seeds(points, (*highs, *lows), column, where or {})
  above = _values(points, highs, seeds, column, where or {})
  below = _values(points, lows, seeds, column, where or {})
  upper = GROUPINGS[how_high](above, axis=0)
  lower = GROUPINGS[how_low](below, axis=0)
  # A minimum is below a maximum by chance alone, so the reversed claim uses the
  # reversed reductions.
  reverse = GROUPINGS[_REVERSED[how_low]](below, axis=0)
  reverse = reverse - GROUPINGS[_REVERSED[how_high]](above, axis=0)
  rule = f'{_group(how_high, highs)} − {_group(how_low, lows)} ≥ {effect:g}'
  if math.isfinite(levels[0]):
    rule += f', the first ≥ {levels[0]:g}, the second ≤ {levels[1]:g}'
  seen = ''
  if seeds:
    seen = f'{upper.mean():.3g} against {lower.mean():.3g}'
  differences = upper - lower
  evidence = Evidence(differences, reverse, effect + reverse)
  word, p = verdicts.of_evidence(evidence, effect)
  missed = bool(seeds) and (
    upper.mean() < levels[0] or lower.mean() > levels[1]
  )
  if word == verdicts.REPRODUCED and missed:
    word = verdicts.NOT_REPRODUCED
  return verdicts.finding(claim, rule, differences, seen, word, p)


def alike(
  points: Points, claim: str, column: str, one: str, other: str, effect: float
) -> ClaimVerdict:
  """Finding on two variants that are claimed to be equivalent.

  Args:
    points: with columns variant and seed.
    claim: that they are alike.
    column: of numbers.
    one: a variant.
    other: a variant.
    effect: the least difference that counts, as for claims of a difference.
  """
  seeds = _shared_seeds(points, (one, other), column, {})
  both = _values(points, (one, other), seeds, column, {})
  differences = both[0] - both[1]
  seen = ''
  if seeds:
    seen = f'{both[0].mean():.3g} and {both[1].mean():.3g}'
  within = significance.equivalence(differences, effect)
  either = 2 * min(map(significance.sign_test, (differences, -differences)))
  word, p = verdicts.NOT_DISTINGUISHABLE, within
  if within <= significance.LEVEL:
    word = verdicts.REPRODUCED
  elif either <= significance.LEVEL and abs(differences.mean()) >= effect:
    word, p = verdicts.OPPOSITE, either
  rule = f'|{one} − {other}| < {effect:g}'
  return verdicts.finding(claim, rule, differences, seen, word, p)


def _values(
  points: Points,
  variants: Sequence[str],
  seeds: Sequence[str],
  column: str,
  where: Mapping[str, str],
) -> np.ndarray:
  """A column's mean over each run, f64 [variants, seeds]."""
  return np.array(
    [
      [points.by_seed(column, variant=v, seed=s, **where)[0] for s in seeds]
      for v in variants
    ]
  )


def _shared_seeds(
  points: Points,
  variants: Sequence[str],
  column: str,
  where: Mapping[str, str],
) -> list[str]:
  """Seeds for which every variant has a value."""
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
