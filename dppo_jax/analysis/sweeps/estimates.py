"""Statistics of the runs of a sweep: means, intervals, pairs, collapsed seeds.

Reward is the mean over all steps of a run, and held-out the last accuracy that
it measured; both are averaged over seeds. An interval is the 95 % t interval of
that mean over seeds, mean ± t_{.975, n-1} s / sqrt(n), which is wide where they
are few: 12.7 standard errors either side of two, 4.3 of three, 2.8 of five. A
share near 0 or 1 has it end beyond them. A difference is to the baseline,
paired by seed; whose interval holds 0, of that nothing is shown.

A seed collapsed if the reward over the last window of its run is below half of
that over its best one. A window is a tenth of the steps, at least four; a run
of fewer than two windows, or whose rewards are never above 0, is not judged.
"""

from collections.abc import Iterator, Mapping, Sequence
import math
from typing import NamedTuple

import numpy as np

from dppo_jax.analysis import equal_mask
from dppo_jax.analysis.significance import mean_interval as estimate
from dppo_jax.analysis.sweeps import variants as variants_lib
from dppo_jax.analysis.sweeps.variants import Variant
from dppo_jax.analysis.table import Points, Row
from dppo_jax.runtime.evaluation.accuracy import Estimate

# Of a run: means over its steps, and what only its last measurement says.
MEANS = ('reward', 'masked', 'dropped', 'mean_abs')
LAST = 'held_out'
# What makes a rule mask more or less; variants that differ in nothing else
# are a family.
THRESHOLDS = (
  *(
    f'trust_region.{name}{end}'
    for name in ('delta', 'clip')
    for end in ('', '_low', '_high')
  ),
  'trust_region.budget',
)
_LEAST_WINDOW = 4


class Line(NamedTuple):
  """A variant.

  Attributes:
    variant: its name.
    num_seeds: n, runs that were finished.
    reward: over the run.
    held_out: at its end.
    masked: share of tokens with M = 0.
    dropped: mean of 1 - M; the same unless the rule is soft.
    difference: of the reward to the baseline; NaN for itself.
    num_pairs: seeds that both have.
    collapsed: seeds that did.
    num_judged: seeds long enough to tell.
  """

  variant: str
  num_seeds: int
  reward: Estimate
  held_out: Estimate
  masked: Estimate
  dropped: Estimate
  difference: Estimate
  num_pairs: int
  collapsed: Sequence[str]
  num_judged: int


class Aligned(NamedTuple):
  """A family against that of the baseline where both take equal weight away.

  Attributes:
    family: its name.
    other: that of the baseline.
    num_pairs: seeds whose ranges of that weight meet.
    dropped: the weight, mean of 1 - M, mean over seeds.
    reward: of the family there, mean over seeds.
    other_reward: of the baseline's.
    difference: of the two, paired by seed.
  """

  family: str
  other: str
  num_pairs: int
  dropped: float
  reward: float
  other_reward: float
  difference: Estimate


def collapsed(rewards: Sequence[float] | np.ndarray) -> bool | None:
  """Whether a run collapsed, by the rule of this module; None: not judged.

  Args:
    rewards: f [steps], in their order.
  """
  found = np.asarray(rewards, np.float64)
  found = found[np.isfinite(found)]
  width = max(_LEAST_WINDOW, -(-len(found) // 10))
  if len(found) < 2 * width:
    return None
  # The last window ends with the run; what is left over opens it.
  whole = found[len(found) % width :].reshape(-1, width).mean(1)
  if whole.max() <= 0:
    return None
  return bool(whole[-1] < whole.max() / 2)


def condense(steps: Sequence[Row]) -> Row:
  """The row of a run from those of its steps, at least one.

  Args:
    steps: with variant, seed, and columns of `collect.COLUMNS`.

  Returns:
    Means over the steps, the last held-out accuracy, NaN what was never
    measured; 'collapsed' is 'yes', 'no' or '' if not judged.
  """
  row: dict[str, str | int | float] = {
    name: steps[0][name] for name in ('variant', 'seed')
  }
  for name in (*MEANS, LAST):
    values = np.array([float(step[name]) for step in steps])
    values = values[np.isfinite(values)]
    if name == LAST:
      values = values[-1:]
    row[name] = float(values.mean()) if values.size else math.nan
  rewards = [float(step['reward']) for step in steps]
  row['collapsed'] = {True: 'yes', False: 'no', None: ''}[collapsed(rewards)]
  return row


def lines(
  points: Points, names: Sequence[str], baseline: str
) -> Iterator[Line]:
  """A line a variant.

  Args:
    points: a row of `condense` a run.
    names: of the variants.
    baseline: the one that the others are compared with.
  """
  rewards = {name: _by_seed(points, name, 'reward') for name in names}
  for name in names:
    chosen = points.where(variant=name)
    judged = [row for row in chosen.rows if row['collapsed']]
    shared = [s for s in rewards[name] if s in rewards[baseline]]
    if name == baseline:
      shared = []
    yield Line(
      variant=name,
      num_seeds=len(chosen.rows),
      reward=estimate(list(rewards[name].values())),
      held_out=estimate(list(_by_seed(points, name, LAST).values())),
      masked=estimate(list(_by_seed(points, name, 'masked').values())),
      dropped=estimate(list(_by_seed(points, name, 'dropped').values())),
      difference=estimate(
        [rewards[name][s] - rewards[baseline][s] for s in shared]
      ),
      num_pairs=len(shared),
      collapsed=[r['seed'] for r in judged if r['collapsed'] == 'yes'],
      num_judged=len(judged),
    )


def families(variants: Sequence[Variant]) -> dict[str, list[str]]:
  """Names of variants by family: they differ in thresholds alone."""
  found: dict[str, list[str]] = {}
  for variant in variants:
    rest = {k: v for k, v in variant.choices.items() if k not in THRESHOLDS}
    found.setdefault(variants_lib.named(rest), []).append(variant.name)
  return found


def aligned(
  points: Points, found: Mapping[str, Sequence[str]], baseline: str
) -> Iterator[Aligned]:
  """Families against the baseline's at equal weight taken away.

  That is the masked share, but of a soft rule. A family is a curve of the
  reward against it, straight between
  its thresholds; it is read in the middle of the range that both have.

  Args:
    points: a row of `condense` a run.
    found: variants by name of the family.
    baseline: a variant.
  """
  (other,) = (name for name, listed in found.items() if baseline in listed)
  for name, listed in found.items():
    if name == other or min(len(listed), len(found[other])) < 2:
      continue
    pairs = equal_mask.pairs_at_equal_mask(
      points, 'reward', listed, found[other]
    )
    means = np.array([pair[1:] for pair in pairs]).reshape(-1, 3)
    dropped, first, second = means.mean(0) if pairs else [np.nan] * 3
    yield Aligned(
      family=name,
      other=other,
      num_pairs=len(pairs),
      dropped=float(dropped),
      reward=float(first),
      other_reward=float(second),
      difference=estimate([pair.one - pair.other for pair in pairs]),
    )


def _by_seed(points: Points, variant: str, column: str) -> dict[str, float]:
  chosen = points.where(variant=variant)
  numbers = chosen.numbers(column)
  return {
    row['seed']: float(number)
    for row, number in zip(chosen.rows, numbers, strict=True)
    if np.isfinite(number)
  }
