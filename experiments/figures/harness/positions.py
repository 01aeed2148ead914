"""Deviation and masking by position in the completion."""

from collections.abc import Iterator, Sequence
import math

import numpy as np

from dppo_jax.analysis import run_tables
from dppo_jax.analysis.jobs.job import Outcome
from dppo_jax.analysis.table import Points, Row
from dppo_jax.experiments.figures.harness.verdicts import (
  ClaimVerdict,
  difference,
  margin,
)
from dppo_jax.runtime.ledger import files
from dppo_jax.runtime.ledger.record import Record

# Column of the points -> metric of a run; a run without CPPO lacks the last.
COLUMNS = {
  'mean_abs': 'mismatch/mean_abs',
  'masked': 'trust_region/fraction_masked',
  'budget': 'cppo/budget_effective',
  'masked_by_budget': 'cppo/masked_by_budget',
}
_ALONG = ('position', 'tv', 'tv_top', 'masked_here', 'bound')
_WIDTH = 16  # Positions per bin.
_MIN_TOKENS = 10  # Tokens per bin, at least.


def rows(outcomes: Sequence[Outcome]) -> Iterator[Row]:
  """Rows per step of a run, then rows per position bin of its ledger.

  Yields:
    Of kind 'step', those of `COLUMNS` and 'budget_share', the share of the
    masked tokens that only the prefix budget masked. Of kind 'position', at the
    middle of a bin of 16 positions over all recorded steps: the mean of
    |pi - mu| ('tv') and of its largest tenth ('tv_top'), the masked share
    ('masked_here'), and the bound on a token's divergence ('bound').
  """
  read = run_tables.step_rows(COLUMNS)
  for outcome in outcomes:
    for row in read([outcome]):
      masked, budget = float(row['masked']), float(row['masked_by_budget'])
      share = budget / masked if masked > 0 else math.nan
      along = dict.fromkeys(_ALONG, math.nan)
      yield {'kind': 'step', **row, 'budget_share': share, **along}
    record = files.load_steps(outcome.folder, 'all')
    empty = dict.fromkeys(('step', *COLUMNS, 'budget_share'), math.nan)
    named = {'variant': outcome.job.name, 'seed': outcome.job.seed}
    for along in by_position(record):
      yield {'kind': 'position', **named, **empty, **along}


def by_position(record: Record) -> Iterator[dict[str, float]]:
  """Columns of kind 'position' of a record; see `rows`."""
  log_pi, log_mu = (
    values.astype(np.float64)
    for values in (record.log_probs, record.rollout_log_probs)
  )
  moved = np.abs(np.exp(log_pi) - np.exp(log_mu))
  for begin in range(0, record.num_columns, _WIDTH):
    here = (record.position >= begin) & (record.position < begin + _WIDTH)
    values = np.sort(moved[here])
    if values.size < _MIN_TOKENS:
      continue
    end = min(begin + _WIDTH, record.num_columns)
    middle = (begin + end - 1) / 2
    yield {
      'position': middle,
      'tv': float(values.mean()),
      'tv_top': float(values[-(-9 * values.size // 10) :].mean()),
      'masked_here': float((record.keep[here] == 0).mean()),
      'bound': _bound(record, middle),
    }


def _bound(record: Record, position: float) -> float:
  """delta / w_t at full length (eq. 9); delta without CPPO."""
  section = record.trust_region
  delta = float(section['delta_high'])
  if not str(section['rule']).startswith('cppo'):
    return delta
  fraction = position / max(record.num_columns - 1, 1)
  return delta / (1.0 - (1.0 - float(section['w_min'])) * fraction)


def varies(
  points: Points, variant: str, column: str, factor: float
) -> ClaimVerdict:
  """Finding that a column at one position is a multiple of that at another.

  A maximum of noisy values is above their minimum by chance alone; so the two
  positions compared in a seed are chosen by the other seeds.

  Args:
    points: of kind 'position'; only positions that every seed has are used.
    variant: of the runs.
    column: of positive numbers.
    factor: of the multiple.
  """
  ends = []
  values = _by_position(points.where(variant=variant), column)
  for place in range(len(values) if values.size else 0):
    others = np.delete(values, place, axis=0)
    if len(others):
      mean = others.mean(0)
      ends.append((values[place, mean.argmax()], values[place, mean.argmin()]))
  most, least = np.array(ends).reshape(-1, 2).T
  return margin(
    'Policy deviation varies with position.',
    f'{column} of {variant} where other seeds have most − {factor:g} · where'
    ' they have least > 0',
    (most - factor * least).tolist(),
    f'{least.mean():.3g} to {most.mean():.3g}' if ends else '',
  )


def _by_position(points: Points, column: str) -> np.ndarray:
  """Column at positions with values for all seeds: f64 [seeds, positions]."""
  seeds = points.values('seed')
  found = [
    [points.by_seed(column, seed=s, position=place) for s in seeds]
    for place in points.values('position')
  ]
  whole = [
    np.ravel(column) for column in found if all(value.size for value in column)
  ]
  return np.array(whole).reshape(len(whole), len(seeds)).T


def early(
  points: Points, claim: str, variant: str, column: str, effect: float
) -> ClaimVerdict:
  """Finding that a column is larger in the first third of a run than the last.

  Args:
    points: of kind 'step', in the order of steps.
    claim: of the paper.
    variant: of the runs.
    column: of numbers; empty cells are dropped.
    effect: least mean difference.
  """
  thirds = []
  for seed in points.where(variant=variant).values('seed'):
    values = points.where(variant=variant, seed=seed).numbers(column)
    values = values[~np.isnan(values)]
    size = len(values) // 3
    if size:
      thirds.append((values[:size].mean(), values[-size:].mean()))
  first, last = np.array(thirds).reshape(-1, 2).T
  return difference(
    claim,
    f'{column} of {variant}: first − last third of the steps ≥ {effect:g}',
    (first - last).tolist(),
    effect,
    f'{first.mean():.3g} against {last.mean():.3g}' if thirds else '',
  )
