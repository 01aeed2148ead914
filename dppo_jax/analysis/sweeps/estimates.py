"""Statistics of the runs of a sweep: means, intervals, pairs, collapsed seeds.

Reward is the mean over all steps of a run, held-out its last measured accuracy;
both are averaged over seeds. Intervals are 95 % t intervals of that mean over
seeds, mean ± t_{.975, n-1} s / sqrt(n). They are wide for few seeds: 12.7
standard errors on either side for two, 4.3 for three, 2.8 for five. Near 0 or 1
the interval of a share can extend beyond them. Differences are to the baseline,
paired by seed; one whose interval contains 0 shows no effect.

A seed collapsed if the mean reward over the last window of its run is below
half of that over its best window. A window is a tenth of the steps, at least
four. Runs of fewer than two windows, and those whose rewards are never above 0,
are not judged.
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

# Columns of a run: means over its steps, and the one that is its last value.
MEANS = ('reward', 'masked', 'dropped', 'mean_abs')
LAST = 'held_out'
# Thresholds; variants that differ in these alone are a family.
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
  """Statistics of a variant.

  Attributes:
    variant: its name.
    num_seeds: n, finished runs.
    reward: mean over the run.
    held_out: accuracy at its end.
    masked: share of tokens with M = 0.
    dropped: mean of 1 - M; equals `masked` unless the rule is soft.
    difference: of the reward to the baseline's; NaN for the baseline.
    num_pairs: seeds finished by both.
    collapsed: collapsed seeds.
    num_judged: seeds with runs long enough to judge.
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
  """A family against the baseline's family at equal removed weight.

  Attributes:
    family: its name.
    other: name of the baseline's family.
    num_pairs: seeds for which both ranges of removed weight overlap.
    dropped: removed weight, mean of 1 - M, mean over seeds.
    reward: of the family at that weight, mean over seeds.
    other_reward: of the baseline's family.
    difference: of the two rewards, paired by seed.
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
  # The last window ends with the run; the remainder at its beginning is unused.
  whole = found[len(found) % width :].reshape(-1, width).mean(1)
  if whole.max() <= 0:
    return None
  return bool(whole[-1] < whole.max() / 2)


def condense(steps: Sequence[Row]) -> Row:
  """Table row of a run, from the rows of its steps.

  Args:
    steps: at least one, with variant, seed and `run_tables.COLUMNS`.

  Returns:
    Means over the steps and the last held-out accuracy, NaN if never measured;
    'collapsed' is 'yes', 'no' or '' if not judged.
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
  """Statistics of each variant.

  Args:
    points: one row of `condense` per run.
    names: of the variants.
    baseline: the variant that others are compared with.
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
  """Names of variants by family: those that differ in thresholds alone."""
  found: dict[str, list[str]] = {}
  for variant in variants:
    rest = {k: v for k, v in variant.choices.items() if k not in THRESHOLDS}
    found.setdefault(variants_lib.named(rest), []).append(variant.name)
  return found


def aligned(
  points: Points, found: Mapping[str, Sequence[str]], baseline: str
) -> Iterator[Aligned]:
  """Families against the baseline's at equal removed weight.

  The removed weight is the masked share unless a rule is soft. The reward of a
  family is interpolated linearly between its thresholds, and evaluated in the
  middle of the range that both families cover.

  Args:
    points: one row of `condense` per run.
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
