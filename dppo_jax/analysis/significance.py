"""What few seeds can say: exact sign tests, and t intervals of a mean."""

from collections.abc import Sequence
import math

import numpy as np

from dppo_jax.runtime.evaluation.accuracy import Estimate

# Of a test: the most that its p may be; an interval covers the rest.
LEVEL = 0.05


def sign_test(values: Sequence[float] | np.ndarray) -> float:
  """p that values are above 0: of an exact, one-sided sign test.

    p = P(B >= k),  B ~ binomial(n, 1/2),  k values of n above 0

  No shape of the noise is assumed, only that either sign is as likely; a value
  of 0 counts against it. Five values that all agree have 1/32, four 1/16, so
  that nothing is shown by fewer than five; of eight, seven suffice (9/256).

  >>> sign_test([0.3, 0.1, 0.2, 0.4, 0.1])
  0.03125

  Args:
    values: one a seed.

  Returns:
    In (0, 1]; 1 without any, or with one that is not finite.
  """
  found = np.asarray(values, np.float64)
  size = found.size
  if not np.isfinite(found).all():
    return 1.0
  least = int((found > 0).sum())
  tail = sum(math.comb(size, k) for k in range(least, size + 1))
  return tail / 2**size


def equivalence(values: Sequence[float] | np.ndarray, margin: float) -> float:
  """p that values lie within a margin: of two one-sided sign tests.

  Args:
    values: differences, one a seed.
    margin: above 0.

  Returns:
    The larger p of the two: above -margin, and below +margin.
  """
  found = np.asarray(values, np.float64)
  return max(sign_test(margin + found), sign_test(margin - found))


def mean_interval(values: Sequence[float] | np.ndarray) -> Estimate:
  """Mean of one number a seed, with the 95 % t interval.

    mean ± t_{.975, n-1} s / sqrt(n),  s^2 = sum (x - mean)^2 / (n - 1)

  Exact for normal noise however few the seeds are: of two it is 12.7 standard
  errors wide on either side, of three 4.3, of five 2.8.

  Args:
    values: f [n].

  Returns:
    NaN what cannot be said: without a value all, of one value its interval.
  """
  # Only here: it is slow to import, and the loop has no use for it.
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
