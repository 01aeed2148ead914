"""Findings that need more than means of a column."""

from collections.abc import Mapping, Sequence

import numpy as np

from dppo_jax.analysis.equal_mask import pairs_at_equal_mask
from dppo_jax.analysis.table import Points
from dppo_jax.experiments.figures.harness.verdicts import (
  ClaimVerdict,
  difference,
  margin,
)

FACTOR = 5.0
Families = Mapping[str, Sequence[str]]


def rare_share(points: Points, clip: str, bound: str) -> ClaimVerdict:
  """Finding that the ratio clip masks far more rare tokens than a divergence.

  Args:
    points: with columns variant, seed, masked and masked_rare, shares of all
      tokens of a step.
    clip: variant with the ratio clip.
    bound: variant with the divergence.

  Returns:
    Finding whose differences are share − FACTOR · share, for rare tokens among
    the masked ones of a run; the opposite is FACTOR times more by the
    divergence.
  """
  shares = {v: _rare_among_masked(points, v) for v in (clip, bound)}
  seeds = [seed for seed in shares[clip] if seed in shares[bound]]
  high, low = (
    np.array([shares[v][seed] for seed in seeds]) for v in (clip, bound)
  )
  seen = ''
  if seeds:
    seen = f'{high.mean():.2%} against {low.mean():.2%} of the masked tokens'
  return margin(
    'The ratio clip masks rare tokens, the divergence does not.',
    f'share of mu < .1 among masked tokens: {clip} − {FACTOR:g} · {bound} > 0',
    (high - FACTOR * low).tolist(),
    seen,
    reverse=(low - FACTOR * high).tolist(),
  )


def _rare_among_masked(points: Points, variant: str) -> dict[str, float]:
  found = {}
  for seed in points.where(variant=variant).values('seed'):
    equal = {'variant': variant, 'seed': seed}
    masked = points.by_seed('masked', **equal)
    rare = points.by_seed('masked_rare', **equal)
    if masked.size and masked[0] > 0:
      found[seed] = float(rare[0] / masked[0])
  return found


def level(
  points: Points, claim: str, column: str, least: float
) -> ClaimVerdict:
  """Finding that the mean of a column is above a level, per seed."""
  found = points.by_seed(column) - least
  seen = f'{found.mean() + least:.4g}' if found.size else ''
  rule = f'{column} − {least:g} > 0'
  return margin(claim, rule, found.tolist(), seen)


def columns_differ(
  points: Points, variant: str, claim: str, high: str, low: str, effect: float
) -> ClaimVerdict:
  """Finding that one column of a variant is above another, per seed."""
  first = points.by_seed(high, variant=variant)
  second = points.by_seed(low, variant=variant)
  seen = ''
  if first.size and first.size == second.size:
    seen = f'{first.mean():.3g} against {second.mean():.3g}'
  return difference(
    claim,
    f'{high} − {low} ≥ {effect:g}, {variant}',
    (first - second).tolist() if seen else [],
    effect,
    seen,
  )


def less_sensitive(
  points: Points,
  column: str,
  families: Families,
  one: str,
  other: str,
  effect: float,
) -> ClaimVerdict:
  """Finding that a column has less spread over the variants of one family.

  Args:
    points: with columns variant and seed.
    column: of numbers.
    families: variants by name of the family.
    one: the family that is claimed to be less sensitive.
    other: the family it is compared with.
    effect: least mean difference of the spreads, largest minus least.
  """
  every = [*families[one], *families[other]]
  differences = []
  for seed in points.values('seed'):
    means = {v: points.by_seed(column, variant=v, seed=seed) for v in every}
    if all(found.size for found in means.values()):
      spreads = [
        np.ptp([means[v][0] for v in families[name]]) for name in (other, one)
      ]
      differences.append(float(spreads[0] - spreads[1]))
  return difference(
    f'{one} is less sensitive to its threshold than {other}.',
    f'spread over thresholds: {other} − {one} ≥ {effect:g}',
    differences,
    effect,
  )


def at_equal_mask(
  points: Points,
  column: str,
  families: Families,
  one: str,
  other: str,
  effect: float,
) -> ClaimVerdict:
  """Finding that a family has more of a column at equal masked share.

  Each family is a curve of the column against its masked share, interpolated
  linearly between its variants; they are compared in the middle of their common
  range of shares. A seed without such a range is dropped.

  Args:
    points: with columns variant, seed and masked.
    column: of numbers.
    families: variants by name of the family.
    one: the family that is claimed to be better.
    other: the family it is compared with.
    effect: least mean difference.
  """
  pairs = pairs_at_equal_mask(points, column, families[one], families[other])
  differences = [pair.one - pair.other for pair in pairs]
  return difference(
    f'At equal masked share {one} has more {column} than {other}.',
    f'{one} − {other} in the middle of their shared range ≥ {effect:g}',
    differences,
    effect,
  )


def ladder(
  points: Points, claim: str, column: str, variants: Sequence[str], first: float
) -> ClaimVerdict:
  """Finding that a column increases from variant to variant.

  Args:
    points: with columns variant and seed.
    claim: of the paper.
    column: of positive numbers.
    variants: in the expected order.
    first: upper bound for the first variant.

  Returns:
    Finding whose differences are the least step of a seed, in decades; the
    opposite is a decrease at every step.
  """
  steps, falls, seen = [], [], []
  for variant in variants:
    values = points.by_seed(column, variant=variant)
    seen.append(f'{variant} {values.mean():.2g}' if values.size else variant)
  for seed in points.values('seed'):
    found = [points.by_seed(column, variant=v, seed=seed) for v in variants]
    if all(values.size for values in found):
      logs = np.log10(np.maximum(np.ravel(found), 1e-12))
      within = np.log10(first) - logs[0]
      steps.append(float(min(np.diff(logs).min(), within)))
      falls.append(float(-np.diff(logs).max()))
  rule = (
    f'{" < ".join(variants)}, and the first ≤ {first:g}: least step in decades,'
    ' or what the first leaves of its bound, > 0'
  )
  return margin(claim, rule, steps, ', '.join(seen), reverse=falls)
