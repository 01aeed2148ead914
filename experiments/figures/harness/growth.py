"""Findings on growth rates."""

from collections.abc import Mapping

import numpy as np

from dppo_jax.analysis.table import Points
from dppo_jax.experiments.figures.harness.verdicts import (
  ClaimVerdict,
  computed,
  difference,
  margin,
)


def times(
  points: Points,
  claim: str,
  column: str,
  high: str,
  low: str,
  factor: float,
  *,
  where: Mapping[str, str],
) -> ClaimVerdict:
  """Finding that a column of one variant is a multiple of another's, per seed.

  Args:
    points: with columns variant and seed.
    claim: of the paper.
    column: of numbers.
    high: the variant with more.
    low: the other.
    factor: of the multiple.
    where: further columns and their values.
  """
  first, second = _pairs(points, column, high, low, where)
  seen = ''
  if first.size:
    seen = f'{first.mean():.3g} against {second.mean():.3g}'
  rule = f'{column}: {high} − {factor:g} · {low} > 0'
  return margin(
    claim,
    rule,
    (first - factor * second).tolist(),
    seen,
    reverse=(second - factor * first).tolist(),
  )


def sooner(
  points: Points, claim: str, column: str, one: str, other: str, level: float
) -> ClaimVerdict:
  """Finding that one variant's column exceeds a level at an earlier step.

  Args:
    points: with columns variant, seed and step, in the order of steps.
    claim: of the paper.
    column: of numbers.
    one: the variant that is claimed to be earlier.
    other: the variant it is compared with.
    level: to exceed; a run that never does counts as one step after its last.
  """
  reached = []
  for variant in (one, other):
    found = {}
    for seed in points.where(variant=variant).values('seed'):
      run = points.where(variant=variant, seed=seed)
      steps = run.numbers('step')
      above = run.numbers(column) > level
      found[seed] = steps[above].min() if above.any() else steps.max() + 1
    reached.append(found)
  seeds = [seed for seed in reached[0] if seed in reached[1]]
  early, late = (np.array([found[s] for s in seeds]) for found in reached)
  seen = ''
  if seeds:
    named = ', '.join(
      f'{a:g} and {b:g}' for a, b in zip(early, late, strict=True)
    )
    seen = f'{column} > {level:g} at step {named} by seed'
  rule = f'step of {column} > {level:g}: {other} − {one} ≥ 1'
  return difference(claim, rule, (late - early).tolist(), 1.0, seen)


def counts(points: Points, slow: str, fast: str, factor: float) -> ClaimVerdict:
  """Finding that a rule needs a multiple of another's refreshes, per label.

  Args:
    points: with columns problem, variant, label and refreshes.
    slow: the variant with more.
    fast: the other.
    factor: of the multiple.

  Returns:
    Finding with one case per label, which are n; nothing is random.
  """
  labels = points.values('label')
  high, low = (
    np.ravel(
      [
        points.where(variant=v, label=label).numbers('refreshes')
        for label in labels
      ]
    )
    for v in (slow, fast)
  )
  pairs = ', '.join(f'{a:g} to {b:g}' for a, b in zip(high, low, strict=True))
  problem = ', '.join(points.values('problem'))
  return computed(
    f'In the tabular problem ({problem}) the clip needs far more refreshes.',
    f'refreshes: {slow} − {factor:g} · {fast} > 0 in every case',
    (high - factor * low).tolist(),
    pairs,
    reverse=(low - factor * high).tolist(),
  )


def _pairs(
  points: Points,
  column: str,
  one: str,
  other: str,
  where: Mapping[str, str],
) -> tuple[np.ndarray, np.ndarray]:
  """Means of a column for the seeds that both variants have, f64 [seeds]."""
  chosen = points.where(**where)
  means = [
    {
      seed: points_of[0]
      for seed in chosen.values('seed')
      if (points_of := chosen.by_seed(column, variant=v, seed=seed)).size
    }
    for v in (one, other)
  ]
  seeds = [seed for seed in means[0] if seed in means[1]]
  first, second = (np.array([m[s] for s in seeds]) for m in means)
  return first, second
