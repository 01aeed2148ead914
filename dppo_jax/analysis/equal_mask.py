"""Comparison of rules at equal masked share."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dppo_jax.analysis.table import Points


class Pair(NamedTuple):
  """Two families of variants at equal masked share, for one seed.

  Attributes:
    seed: of the runs.
    masked: the masked share.
    one: column of the first family at that share.
    other: column of the second family.
  """

  seed: str
  masked: float
  one: float
  other: float


def pairs_at_equal_mask(
  points: Points, column: str, one: Sequence[str], other: Sequence[str]
) -> list[Pair]:
  """Pairs of two families, one per seed, interpolated as in `at_equal_mask`.

  A family of one variant is a point, at which the other family is read.

  Args:
    points: with columns variant, seed and masked.
    column: of numbers.
    one: variants of the first family.
    other: variants of the second family.
  """
  pairs = []
  for seed in points.values('seed'):
    curves = [
      _against_mask(points, column, variants, seed) for variants in (one, other)
    ]
    known = [
      len(curve) >= min(2, len(variants))
      for curve, variants in zip(curves, (one, other), strict=True)
    ]
    if not all(known) or max(map(len, curves)) < 2:
      continue
    begin = max(curve[0, 0] for curve in curves)
    end = min(curve[-1, 0] for curve in curves)
    if begin > end:
      continue
    middle = float((begin + end) / 2)
    first, second = (float(np.interp(middle, c[:, 0], c[:, 1])) for c in curves)
    pairs.append(Pair(seed, middle, first, second))
  return pairs


def _against_mask(
  points: Points, column: str, variants: Sequence[str], seed: str
) -> np.ndarray:
  """Removed weight and column of every variant, ascending: f64 [n, 2].

  The removed weight, mean of 1 - M, is the masked share unless a rule is soft.
  Older points have only the masked share, and no soft rules.
  """
  names = points.rows[0] if points.rows else {}
  strength = 'dropped' if 'dropped' in names else 'masked'
  pairs = []
  for variant in variants:
    x = points.by_seed(strength, variant=variant, seed=seed)
    y = points.by_seed(column, variant=variant, seed=seed)
    if x.size and y.size:
      pairs.append((x[0], y[0]))
  return np.array(sorted(pairs)).reshape(-1, 2)
