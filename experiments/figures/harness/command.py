"""Command of a figure: run, collect, plot, judge, report.

The folder --out gets NAME.csv with every point; NAME.png and NAME.svg, drawn
from that file alone; facts.json and README.md with the verdicts. Results of
other code or another tier are moved to earlier/. With --judge nothing is run:
the existing points are plotted and judged again, with the current rules.
"""

from collections.abc import Callable, Sequence
import json
import os
import pathlib
import sys
import time
from typing import NamedTuple

from absl import flags

from dppo_jax import bounded_json
from dppo_jax.analysis import drawing, facets, panels, table
from dppo_jax.analysis.jobs import pool
from dppo_jax.analysis.jobs.job import Outcome
from dppo_jax.experiments.figures.harness import readme
from dppo_jax.experiments.figures.harness.figure import (
  POD,
  Figure,
  check_tier,
  jobs,
)
from dppo_jax.runtime import cli
from dppo_jax.runtime.storage import files, workdir

FACTS = 'facts.json'
_EARLIER = 'earlier'


class Options(NamedTuple):
  """Flags of a figure.

  Attributes:
    tier: a tier of the figure, or 'pod', whose commands are printed.
    out: folder of the results; None if not given.
    runs: folder of the runs, shared by all figures.
    parallel: runs at a time.
    judge: whether to judge existing points, without runs.
  """

  tier: str
  out: str | None
  runs: pathlib.Path
  parallel: int
  judge: bool


def run(figure: Figure, docs: str | None) -> None:
  """Runs the command of one figure's module.

  Args:
    figure: of the module.
    docs: docstring of the module, repeated in the README.
  """
  read = define_flags()

  def main() -> int:
    options = read()
    named = cli.required('out', options.out, 'the folder of the results')
    return follow(figure, docs, options, pathlib.Path(named))

  cli.run(main)


def follow(
  figure: Figure, docs: str | None, options: Options, out: pathlib.Path
) -> int:
  """Exit code after making a figure, or judging its existing points.

  Args:
    figure: to make.
    docs: docstring of its module.
    options: the flags.
    out: folder of this figure's results.
  """
  if options.judge:
    redraw(figure, docs, out)
    return 0
  return make(figure, docs, options.tier, out, options.runs, options.parallel)


def define_flags() -> Callable[[], Options]:
  """Defines the flags of `Options` and returns their reader."""
  tier = flags.DEFINE_string('tier', 'cpu', 'smoke, cpu, gpu or pod.')
  out = flags.DEFINE_string('out', None, 'Folder for CSV, plots, README.')
  runs = flags.DEFINE_string('runs', 'runs/figures', 'Folder of the runs.')
  parallel = flags.DEFINE_integer('parallel', 1, 'Runs at a time.')
  judge = flags.DEFINE_bool(
    'judge', False, 'Judge the points in --out; run nothing.'
  )
  return lambda: Options(
    tier.value,
    out.value,
    pathlib.Path(runs.value).expanduser(),
    parallel.value,
    judge.value,
  )


def make(
  figure: Figure,
  docs: str | None,
  tier_name: str,
  out: pathlib.Path,
  runs: pathlib.Path,
  parallel: int,
) -> int:
  """Exit code after making a figure, 1 if a run failed.

  Args:
    figure: to make.
    docs: docstring of its module.
    tier_name: a tier of the figure, or 'pod', whose commands are printed.
    out: folder of the results.
    runs: folder of the runs, shared by all figures.
    parallel: runs at a time.

  Raises:
    ValueError: no such tier, a folder cannot be written, or there is no point.
  """
  check_tier(figure, tier_name)
  if tier_name == POD:
    print(readme.pod_lines(figure))
    return 0
  tier = figure.tiers[tier_name]
  begin, begin_cpu = time.monotonic(), time.process_time()
  out = workdir.open_workdir(out)
  outcomes = pool.run_jobs(jobs(figure, tier), runs, parallel=parallel)
  finished = [outcome for outcome in outcomes if not outcome.error]
  rows = figure.rows(finished)
  code = readme.figures_version()
  _keep_aside(figure, out, code, tier_name)
  table.write(out / f'{figure.name}.csv', rows)
  spent = (time.monotonic() - begin, time.process_time() - begin_cpu)
  facts = _facts(outcomes, code, tier_name, spent)
  files.write_atomically(out / FACTS, json.dumps(facts, indent=2) + '\n')
  redraw(figure, docs, out)
  failed = [outcome for outcome in outcomes if outcome.error]
  for outcome in failed:
    name = f'{outcome.job.name}, seed {outcome.job.seed}'
    print(f'failed: {name}: {outcome.error}', file=sys.stderr)
  return 1 if failed else 0


def panels_of(figure: Figure, points: table.Points) -> list[panels.Panel]:
  """Panels as drawn: crowded ones apart, variants by their shown names."""
  return [
    part
    for panel in figure.panels(points)
    for part in facets.apart(facets.named(panel))
  ]


def redraw(figure: Figure, docs: str | None, out: pathlib.Path) -> None:
  """Plots, judges and writes README.md, from the CSV and facts.json.

  Args:
    figure: to draw.
    docs: docstring of its module.
    out: folder of the results.

  Raises:
    ValueError: a file is missing or damaged.
  """
  found = table.read(out / f'{figure.name}.csv')
  try:
    facts = bounded_json.read_object(out / FACTS)
  except (OSError, ValueError) as error:
    raise ValueError(
      f'{out / FACTS}: cannot be read ({error}); draw the figure anew, without'
      ' --redraw.'
    ) from error
  about = f'{figure.paper} · {readme.about(facts)}'
  title = '\n'.join((figure.title, about, panels.BANDS))
  drawn = panels_of(figure, found)
  drawing.draw(out / figure.name, title, drawn)
  findings = figure.judge(found)
  text = readme.write(figure, docs, facts, findings)
  files.write_atomically(out / 'README.md', text)
  print(readme.verdict_lines(figure, findings))
  print(f'Picture:   {out / figure.name}.png')


def _facts(
  outcomes: Sequence[Outcome],
  code: str,
  tier: str,
  spent: tuple[float, float],
) -> dict[str, object]:
  """Facts of README.md in addition to the verdicts, JSON values."""
  done = {o.folder: o for o in outcomes if not o.error}.values()
  wall_s, cpu_s = spent
  return {
    'tier': tier,
    'code': code,
    'commit': readme.commit(),
    'seeds': sorted({o.job.seed for o in outcomes}),
    'num_runs': len({o.folder for o in outcomes}),
    'failed': [
      f'{o.job.name}, seed {o.job.seed}: {o.error}' for o in outcomes if o.error
    ],
    'devices': sorted({o.device for o in done}) or ['the processor'],
    'command_wall_s': round(wall_s, 1),
    'command_cpu_s': round(cpu_s, 1),
    'runs_wall_s': round(sum(o.wall_s for o in done), 1),
    'runs_cpu_s': round(sum(o.cpu_s for o in done), 1),
  }


def _keep_aside(
  figure: Figure, out: pathlib.Path, code: str, tier: str
) -> None:
  """Moves results of other code or another tier to `earlier/`."""
  try:
    facts = bounded_json.read_object(out / FACTS)
    before, of_tier = str(facts['code']), str(facts['tier'])
  except (OSError, ValueError, KeyError, TypeError):
    before, of_tier = 'unknown', 'unknown'
  if (before, of_tier) == (code, tier):
    return
  names = [f'{figure.name}{ending}' for ending in ('.csv', '.png', '.svg')]
  there = [n for n in (*names, 'README.md', FACTS) if (out / n).exists()]
  if not there:
    return
  label = ''.join(c if c.isalnum() else '_' for c in f'{of_tier}_{before}')
  aside = out / _EARLIER / label[:60]
  aside.mkdir(parents=True, exist_ok=True)
  for name in there:
    os.replace(out / name, aside / name)
  print(f'Results of other code or another tier: moved to {aside}')
