"""The command of a sweep: run and report, report, or print command lines."""

import pathlib
import sys
from typing import Any

from dppo_jax.analysis.jobs import pool
from dppo_jax.analysis.sweeps import plan, report
from dppo_jax.analysis.sweeps.plan import Sweep
from dppo_jax.runtime.storage import workdir


def run(
  sweep: Sweep,
  folder: pathlib.Path,
  defaults: Any,
  baseline: str | None,
  parallel: int,
) -> int:
  """Exit code after running unfinished runs and reporting; 1 if any failed.

  Args:
    sweep: what to run.
    folder: its workdir; a sweep already there is continued.
    defaults: a ConfigDict of configs/default.py.
    baseline: name of a variant; None for the first.
    parallel: number of concurrent runs.

  Raises:
    ValueError: a config has problems, or the folder is not for this sweep.
    KeyboardInterrupt: SIGTERM or Ctrl-C; running jobs have saved their state.
  """
  against = report.choose_baseline(sweep.variants, baseline)
  plan.check(sweep, defaults)
  folder = workdir.open_workdir(folder)
  with workdir.locked(folder):
    _tell(plan.write(folder, sweep))
    try:
      outcomes = pool.run_jobs(
        plan.jobs(sweep, defaults), folder / plan.RUNS, parallel=parallel
      )
    except KeyboardInterrupt:
      _tell('The same command resumes; --report shows the results so far.')
      raise
    plan.write_failures(folder, outcomes)
    print(report.make(folder, sweep, outcomes, against))
  return 1 if any(outcome.error for outcome in outcomes) else 0


def show(folder: pathlib.Path, defaults: Any, baseline: str | None) -> int:
  """Exit code after reporting finished runs only; 1 if any is missing.

  Args:
    folder: workdir of a sweep.
    defaults: a ConfigDict of configs/default.py.
    baseline: name of a variant; None for the first.
  """
  sweep = plan.read(folder)
  against = report.choose_baseline(sweep.variants, baseline)
  outcomes = plan.outcomes(sweep, folder, plan.jobs(sweep, defaults))
  print(report.make(folder, sweep, outcomes, against))
  return 1 if any(outcome.error for outcome in outcomes) else 0


def print_lines(sweep: Sweep, folder: pathlib.Path, defaults: Any) -> int:
  """Prints one command per run, for a cluster that shares the folder.

  The sweep is recorded there, so that `show` finds the results.

  Args:
    sweep: what to run.
    folder: its workdir.
    defaults: a ConfigDict of configs/default.py.
  """
  plan.check(sweep, defaults)
  folder = workdir.open_workdir(folder)
  with workdir.locked(folder):
    _tell(plan.write(folder, sweep))
  for line in plan.lines(sweep, folder, plan.jobs(sweep, defaults)):
    print(line)
  return 0


def _tell(text: str) -> None:
  if text:
    print(text, file=sys.stderr)
