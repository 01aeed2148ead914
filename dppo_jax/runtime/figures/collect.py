"""Finished runs to the rows of a table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import math
from typing import Any

from dppo_jax.runtime import writers
from dppo_jax.runtime.figures.points import Row
from dppo_jax.runtime.jobs.job import Outcome


def step_rows(
  columns: Mapping[str, str],
) -> Callable[[Sequence[Outcome]], Iterator[Row]]:
  """Returns outcomes -> a row a step of every run that was finished.

  Args:
    columns: metric by the name of its column; a step without it has an empty
      cell, as all but the first and last have of held-out accuracy.
  """

  def rows(outcomes: Sequence[Outcome]) -> Iterator[Row]:
    for outcome in outcomes:
      for step, metrics in steps(outcome).items():
        yield {
          'variant': outcome.job.name,
          'seed': outcome.job.seed,
          'step': step,
          **{
            name: float(metrics[metric]) if metric in metrics else math.nan
            for name, metric in columns.items()
          },
        }

  return rows


def steps(outcome: Outcome) -> dict[int, dict[str, Any]]:
  """Metrics of a run by step, lines of a step merged."""
  merged: dict[int, dict[str, Any]] = {}
  for row in writers.read_rows(outcome.folder / writers.METRICS_FILE):
    merged.setdefault(int(row['step']), {}).update(row)
  return dict(sorted(merged.items()))
