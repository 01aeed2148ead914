"""Statistics for few seeds: exact sign tests, and t intervals of a mean."""

from collections.abc import Sequence
import math

import numpy as np

from dppo_jax.runtime.evaluation.accuracy import Estimate

# Significance level of tests; intervals cover 1 - LEVEL.
LEVEL = 0.05
MAX_FLIPPED = 20  # Values of a sign-flip test: 2^20 sums.


def sign_test(values: Sequence[float] | np.ndarray) -> float:
  """p of an exact, one-sided sign test that values are above 0.

    p = P(B >= k),  B ~ binomial(n, 1/2),  k values of n above 0

  It assumes only that both signs are equally likely under the null hypothesis;
  a value of 0 counts against the claim. If all agree, p is 1/32 for five values
  and 1/16 for four, so fewer than five are never significant; of eight, seven
  suffice (9/256).

  >>> sign_test([0.3, 0.1, 0.2, 0.4, 0.1])
  0.03125

  Args:
    values: one per seed.

  Returns:
    In (0, 1]; 1 without values, or if one is not finite.
  """
  found = np.asarray(values, np.float64)
  size = found.size
  if not np.isfinite(found).all():
    return 1.0
  least = int((found > 0).sum())
  tail = sum(math.comb(size, k) for k in range(least, size + 1))
  return tail / 2**size


def equivalence(values: Sequence[float] | np.ndarray, margin: float) -> float:
  """p of an equivalence test: values within a margin, by two sign tests.

  Args:
    values: differences, one per seed.
    margin: above 0.

  Returns:
    The larger p of the two: above -margin, and below +margin.
  """
  found = np.asarray(values, np.float64)
  return max(sign_test(margin + found), sign_test(margin - found))


def sign_flip(values: Sequence[float] | np.ndarray) -> float:
  """p of an exact, one-sided sign-flip test that the mean is above 0.

    p = share of the 2^n choices of signs s with  sum s |x| >= sum x

  It assumes that differences are symmetric about 0 under the null hypothesis,
  and takes their size into account, which a sign test does not.

  >>> sign_flip([0.3, 0.1, 0.2, 0.4, 0.1])
  0.03125

  Args:
    values: f [n], n at most 20: one per block.

  Returns:
    In [2^-n, 1]; 1 without values, or if one is not finite.

  Raises:
    ValueError: more values than can be enumerated.
  """
  found = np.asarray(values, np.float64)
  if found.size > MAX_FLIPPED:
    raise ValueError(
      f'sign_flip: got {found.size} values; at most {MAX_FLIPPED}, as every'
      ' choice of signs is tried: take means of blocks'
    )
  if not found.size or not np.isfinite(found).all():
    return 1.0
  sums = np.zeros(1)
  for size in np.abs(found):
    sums = np.concatenate([sums + size, sums - size])
  least = found.sum() - 1e-12 * np.abs(found).sum()  # Rounding of a tie.
  return float(np.mean(sums >= least))


def holm(ps: Sequence[float]) -> list[float]:
  """p values corrected for their number: the family-wise error is kept.

  The k-th smallest of m is multiplied by m - k + 1, and is at least that before
  it (Holm 1979); at most 1. Valid whatever the tests have in common.

  >>> holm([0.01, 0.04, 0.03])
  [0.03, 0.06, 0.06]
  """
  corrected = [1.0] * len(ps)
  least = 0.0
  for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
    least = max(least, min(1.0, (len(ps) - rank) * ps[place]))
    corrected[place] = least
  return corrected


def mean_interval(values: Sequence[float] | np.ndarray) -> Estimate:
  """Mean over seeds, with its 95 % t interval: (mean, low, high).

    mean ± t_{.975, n-1} s / sqrt(n),  s^2 = sum (x - mean)^2 / (n - 1)

  Exact for normal noise and any number of seeds: for two, it is 12.7 standard
  errors wide on either side, for three 4.3, for five 2.8.

  Args:
    values: f [n].

  Returns:
    NaN for unknown values: all without a value, the interval for one value.
  """
  # Imported here: it is slow to import, and the training loop does not use it.
  from scipy import special

  found = np.asarray(values, np.float64)
  if not found.size:
    return Estimate(np.nan, np.nan, np.nan)
  mean = float(found.mean())
  if found.size < 2:
    return Estimate(mean, np.nan, np.nan)
  error = float(found.std(ddof=1)) / math.sqrt(found.size)
  reach = float(special.stdtrit(found.size - 1, 1.0 - LEVEL / 2)) * error
  return Estimate(mean, mean - reach, mean + reach)
