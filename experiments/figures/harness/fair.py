"""Conditions of the fair trial, its rows, and its verdicts.

Every method is run against every mismatch on two tasks, at its paper's
thresholds. The reference is run at an eighth to twice its threshold, too: a
curve of reward against the removed weight, which is read where another method
removes as much (`analysis/equal_mask.py`), so that none wins by masking less.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import math
from typing import Any

import numpy as np

from dppo_jax.analysis import panels, significance
from dppo_jax.analysis.equal_mask import pairs_at_equal_mask
from dppo_jax.analysis.jobs.job import Outcome
from dppo_jax.analysis.run_tables import COLUMNS, steps
from dppo_jax.analysis.table import Points, Row
from dppo_jax.experiments.figures import settings
from dppo_jax.experiments.figures.harness import verdicts
from dppo_jax.experiments.figures.harness.verdicts import ClaimVerdict, Findings

Overrides = Mapping[str, Any]

REFERENCE = 'DPPO-Binary-TV'
# Of the reference's threshold: what it then removes spans what others do.
SCALES = (0.125, 0.25, 0.5, 1.0, 2.0)
_DELTA = 0.2
_CENTERED = {'objective.centering': 'topk'}
_BY_CANDIDATE = {'objective.centering_mask': 'candidate'}
METHODS: Mapping[str, Overrides] = {
  'PG-IS': settings.ruled('none'),
  'centering alone': {
    **settings.ruled('none'),
    **_CENTERED,
    'objective.importance': 'none',
  },
  'centering, truncated': {
    **settings.ruled('none', ratio_cap=2.0),
    **_CENTERED,
  },
  'PPO clip': settings.clip(0.2, 0.2),
  REFERENCE: settings.bound('binary_tv', _DELTA),
  'DPPO-TopK-TV': settings.bound('topk_tv', 0.2),
  'DPPO-exact-TV': settings.bound('exact_tv', 0.2),
  'CPPO': settings.cppo(),
  'DRPO': settings.ruled(
    'drpo', divergence='binary_tv', delta_low=0.15, delta_high=0.15
  ),
  'predictive': settings.bound('topk_kl', 0.15, direction='predictive'),
  'IPO': settings.bound('binary_tv', 0.1, direction='any'),
  'IcePop': settings.clip(0.5, 4.0, direction='any'),
  'centering, DPPO': {
    **settings.bound('topk_tv', 0.2),
    **_CENTERED,
    **_BY_CANDIDATE,
  },
}
# These remove nothing, and no threshold of the reference does.
_MASKLESS = ('PG-IS', 'centering alone', 'centering, truncated')
MISMATCHES: Mapping[str, Overrides] = {
  'bf16': {'sampling.precision': 'bfloat16'},
  'int8': {'sampling.precision': 'int8'},
  'fp8': {'sampling.precision': 'fp8'},
  'int4': {'sampling.precision': 'int4'},
  'noise': {'sampling.weight_noise': 0.05},
  'lag 4': {'sampling.lag': 4},
}
TASKS: Mapping[str, Overrides] = {
  'sort': {'data.task': 'sort'},
  'running sum': {
    'data.task': 'running_sum',
    'data.max_prompt_length': 6,
    'sampling.max_completion_length': 7,
    'rewards.verifier': 'last_word',
  },
}
_LAST = 0.25  # Of a run, its end, for a collapse.


def at_scale(scale: float) -> str:
  """Name of the reference at a scale of its threshold; its own name at 1."""
  return REFERENCE if scale == 1 else f'{REFERENCE} ×{scale:g}'


def variants() -> dict[str, dict[str, Any]]:
  """Overrides of every condition, named 'method | mismatch | task'."""
  methods = {
    **METHODS,
    **{at_scale(s): settings.bound('binary_tv', _DELTA * s) for s in SCALES},
  }
  return {
    f'{method} | {mismatch} | {task}': {
      'objective.centering': 'off',
      'objective.centering_mask': 'token',
      **overrides,
      **MISMATCHES[mismatch],
      **TASKS[task],
    }
    for task in TASKS
    for mismatch in MISMATCHES
    for method, overrides in methods.items()
  }


def rows(outcomes: Sequence[Outcome]) -> Iterator[Row]:
  """One row per run: means over its steps, and whether it collapsed.

  A run collapses if its last quarter earns less than its first step, by the
  least difference of a collapse.
  """
  for outcome in outcomes:
    method, mismatch, task = outcome.job.name.split(' | ')
    found = [m for m in steps(outcome).values() if COLUMNS['reward'] in m]
    means = {
      column: float(
        np.mean([m[metric] for m in found if metric in m] or [np.nan])
      )
      for column, metric in COLUMNS.items()
      if column != 'held_out'
    }
    earned = [float(m[COLUMNS['reward']]) for m in found]
    last = earned[-max(1, round(_LAST * len(earned))) :]
    lost = bool(earned) and np.mean(last) < earned[0] - settings.COLLAPSE
    yield {
      'variant': method,
      'label': mismatch,
      'task': task,
      'seed': outcome.job.seed,
      **means,
      'collapsed': float(lost),
    }


def panels_of(points: Points) -> list[panels.Panel]:
  """Panels of every task: markers by mismatch, at the papers' thresholds."""
  shown = Points([row for row in points.rows if row['variant'] in METHODS])
  return [
    panels.grouped(
      shown.where(task=task), column, f'{title}, {task}', unit, ordered=False
    )
    for task in shown.values('task')
    for column, title, unit in (
      ('reward', 'Reward', 'mean over a run'),
      ('collapsed', 'Collapsed', 'share of runs'),
      ('mean_abs', 'Mean of |π − μ|', 'probability'),
      ('dropped', 'Removed weight', 'mean of 1 − M'),
    )
  ]


def judge(points: Points) -> Findings:
  """Every method against the reference: at its thresholds, at equal strength.

  Blocks are (task, seed); over all mismatches, a block is their mean. p is of
  an exact sign-flip test of the mean, and is multiplied as Holm does within a
  mismatch: one comparison per method.
  """
  others = [name for name in METHODS if name != REFERENCE]
  compared = {
    'at default thresholds': _compare(points, others, _at_default),
    'at equal removed weight': _compare(
      points, [name for name in others if name not in _MASKLESS], _at_equal
    ),
  }
  every = 'all mismatches'
  return [
    finding
    for label in (*MISMATCHES, every)
    for how, cells in compared.items()
    for finding in _family(
      {
        name: _blocks(of, list(MISMATCHES) if label == every else [label])
        for name, of in cells.items()
      },
      label,
      how,
    )
  ]


def _family(
  blocks: Mapping[str, list[float]], label: str, how: str
) -> list[ClaimVerdict]:
  """Findings of one family of comparisons, corrected together."""
  effect = settings.REWARD
  tested = {name: np.asarray(values) for name, values in blocks.items()}
  tests = {
    'more': [significance.sign_flip(d) for d in tested.values()],
    'less': [significance.sign_flip(-d) for d in tested.values()],
    'alike': [
      max(
        significance.sign_flip(effect - d), significance.sign_flip(effect + d)
      )
      for d in tested.values()
    ],
  }
  corrected = {kind: significance.holm(ps) for kind, ps in tests.items()}
  found = []
  for number, (name, d) in enumerate(tested.items()):
    ps = {kind: values[number] for kind, values in corrected.items()}
    word, p = _verdict(d, ps, effect)
    claim = f'{name} earns more than {REFERENCE}, {label}, {how}.'
    rule = f'{name} − {REFERENCE} ≥ {effect:g}'
    found.append(verdicts.finding(claim, rule, d, '', word, p))
  return found


def _verdict(
  differences: np.ndarray, ps: Mapping[str, float], effect: float
) -> tuple[str, float]:
  """Word and p, corrected, of the test that decided it.

  reproduced: more, and by the effect; opposite: less, and by the effect; not
  reproduced: alike, within the effect on both sides.
  """
  level = significance.LEVEL
  mean = float(differences.mean()) if differences.size else math.nan
  # One of two sides: each has half of the level.
  if 2 * ps['more'] <= level and mean >= effect:
    return verdicts.REPRODUCED, 2 * ps['more']
  if 2 * ps['less'] <= level and mean <= -effect:
    return verdicts.OPPOSITE, 2 * ps['less']
  if ps['alike'] <= level:
    return verdicts.NOT_REPRODUCED, ps['alike']
  return verdicts.NOT_DISTINGUISHABLE, min(1.0, 2 * min(ps['more'], ps['less']))


# (task, mismatch) -> seed -> difference from the reference.
_Cells = Mapping[tuple[str, str], Mapping[str, float]]


def _compare(
  points: Points,
  methods: Sequence[str],
  differences: Callable[[Points, str], dict[str, float]],
) -> dict[str, _Cells]:
  """Differences of every method in every cell."""
  cells = {
    (task, label): points.where(task=task, label=label)
    for task in TASKS
    for label in MISMATCHES
  }
  return {
    method: {cell: differences(of, method) for cell, of in cells.items()}
    for method in methods
  }


def _blocks(cells: _Cells, labels: Sequence[str]) -> list[float]:
  """Differences by (task, seed), means over the mismatches.

  A block that lacks one of them is left out.
  """
  blocks = []
  for task in TASKS:
    of_task = [cells[task, label] for label in labels]
    shared = [s for s in of_task[0] if all(s in cell for cell in of_task)]
    blocks += [float(np.mean([cell[s] for cell in of_task])) for s in shared]
  return blocks


def _at_default(points: Points, method: str) -> dict[str, float]:
  """Seed to the difference of the reward at the papers' thresholds."""
  found = {}
  for seed in points.values('seed'):
    one, other = (
      points.by_seed('reward', variant=name, seed=seed)
      for name in (method, REFERENCE)
    )
    if one.size and other.size:
      found[seed] = float(one[0] - other[0])
  return found


def _at_equal(points: Points, method: str) -> dict[str, float]:
  """Seed to the difference of the reward at equal removed weight."""
  curve = [at_scale(scale) for scale in SCALES]
  pairs = pairs_at_equal_mask(points, 'reward', [method], curve)
  return {pair.seed: pair.one - pair.other for pair in pairs}
