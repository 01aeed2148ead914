"""Pairs of runs whose rules mask equal shares of the tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dppo_jax.analysis.table import Points


class Pair(NamedTuple):
  """Two families of a seed where both mask equally much.

  Attributes:
    seed: which.
    masked: the share that both mask.
    one: column of the first there.
    other: of the second.
  """

  seed: str
  masked: float
  one: float
  other: float


def pairs_at_equal_mask(
  points: Points, column: str, one: Sequence[str], other: Sequence[str]
) -> list[Pair]:
  """Compares two families as `at_equal_mask` says, a pair a seed.

  Args:
    points: with columns variant, seed and masked.
    column: of numbers.
    one: variants of the first family.
    other: of the second.
  """
  pairs = []
  for seed in points.values('seed'):
    curves = [
      _against_mask(points, column, variants, seed) for variants in (one, other)
    ]
    if min(map(len, curves)) < 2:
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
  """Weight lost and column of every variant, ascending: f64 [n, 2].

  It is the masked share unless a rule is soft; points kept before it was
  recorded have that share alone, and no soft rule among them.
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
