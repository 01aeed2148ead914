"""Report of a sweep: tables to print, points, plots and a page.

WORKDIR/report has runs.csv, one row per finished run with its folder;
points.csv, the steps of plotted variants; sweep.png and sweep.svg; and the
self-contained report.html. All are rewritten each time; tables are computed
from runs.csv alone.
"""

from collections.abc import Iterable, Sequence
import math
import pathlib

from dppo_jax.analysis import (
  drawing,
  facets,
  html_page,
  panels,
  run_tables,
  table,
)
from dppo_jax.analysis.html_page import Part, Picture, Table, Text
from dppo_jax.analysis.jobs.job import Outcome
from dppo_jax.analysis.panels import Panel
from dppo_jax.analysis.sweeps import estimates
from dppo_jax.analysis.sweeps.estimates import Aligned, Line
from dppo_jax.analysis.sweeps.plan import Sweep
from dppo_jax.analysis.sweeps.variants import Variant
from dppo_jax.analysis.table import Points
from dppo_jax.runtime.evaluation.accuracy import Estimate
from dppo_jax.suggestions import suggest

FOLDER = 'report'
PAGE = 'report.html'
PICTURE = 'sweep'
RUNS, POINTS = 'runs.csv', 'points.csv'
# Variants in a plot; more would be indistinguishable.
MAX_CURVES = 12
# Rows of points.csv; long runs are subsampled.
MAX_POINTS = 200_000
_NONE = '–'


def choose_baseline(variants: Sequence[Variant], asked: str | None) -> str:
  """Name of the variant that others are compared with, by default the first.

  Raises:
    ValueError: no variant has that name.
  """
  names = [variant.name for variant in variants]
  if asked is None:
    return names[0]
  if asked not in names:
    raise ValueError(f'--baseline: unknown {asked!r}{suggest(asked, names)}')
  return asked


def make(
  folder: pathlib.Path,
  sweep: Sweep,
  outcomes: Sequence[Outcome],
  baseline: str,
) -> str:
  """Text to print, after writing the report.

  Args:
    folder: workdir of the sweep.
    sweep: of the folder.
    outcomes: one per run; those with an error are listed and excluded.
    baseline: name of a variant.
  """
  finished = [outcome for outcome in outcomes if not outcome.error]
  failed = [outcome for outcome in outcomes if outcome.error]
  missing = [_failures(failed)] if failed else []
  if not finished:
    return '\n\n'.join(
      [*map(html_page.to_text, missing), 'No run was finished.']
    )
  out = folder / FOLDER
  out.mkdir(exist_ok=True)
  names = [variant.name for variant in sweep.variants]
  there = {outcome.job.name for outcome in finished}
  drawn = [name for name in names if name in there][:MAX_CURVES]
  condensed, found = _collect(out, finished, drawn)
  families = estimates.families(sweep.variants)
  lines = list(estimates.lines(condensed, names, baseline))
  aligned = list(estimates.aligned(condensed, families, baseline))
  tables: list[Table | Text] = [_lines(lines, baseline, sweep.num_seeds)]
  tables += [_aligned(aligned)] if aligned else []
  tables += missing
  about = (
    f'{len(names)} variants × {sweep.num_seeds} seeds, {len(finished)} runs'
    f' finished, {len(failed)} not'
  )
  shown = _panels(found, condensed, len(names), families)
  drawing.draw(out / PICTURE, f'Sweep: {about}\n{panels.BANDS}', shown)
  parts: list[Part] = [*tables, Picture('Pictures', out / f'{PICTURE}.png')]
  rules = Text('How it is computed', estimates.__doc__ or '')
  parts += [_settings(sweep), rules]
  html_page.write(out / PAGE, f'Sweep: {about}', parts)
  printed = [about, *map(html_page.to_text, tables), f'Page: {out / PAGE}']
  return '\n\n'.join(printed)


def _collect(
  out: pathlib.Path, finished: Sequence[Outcome], drawn: Sequence[str]
) -> tuple[Points, Points]:
  """Rows per run, and rows per step of plotted variants, as read from files."""
  read = run_tables.step_rows(run_tables.COLUMNS)
  num_drawn = sum(outcome.job.name in drawn for outcome in finished)
  most = max(MAX_POINTS // max(num_drawn, 1), 1)
  rows, steps = [], []
  for outcome in finished:
    listed = list(read([outcome]))
    if listed:
      row = estimates.condense(listed)
      rows.append({**row, 'folder': outcome.folder.name})
    if outcome.job.name in drawn:
      steps += listed[:: -(-len(listed) // most) or 1]
  table.write(out / RUNS, rows)
  table.write(out / POINTS, steps)
  return table.read(out / RUNS), table.read(out / POINTS)


def _lines(lines: Iterable[Line], baseline: str, num_seeds: int) -> Table:
  heads = ['variant', 'n', 'reward', '95 %', 'held-out', '95 %', 'masked']
  heads += ['weight lost', '− baseline', '95 %', 'pairs', 'collapsed']
  rows = [
    [
      line.variant,
      f'{line.num_seeds}/{num_seeds}',
      *_estimate(line.reward),
      *_estimate(line.held_out),
      _number(line.masked.value, '.2%'),
      _number(line.dropped.value, '.2%'),
      *_estimate(line.difference, '+.3f'),
      str(line.num_pairs) if line.num_pairs else _NONE,
      _collapsed(line),
    ]
    for line in lines
  ]
  note = (
    f'Baseline: {baseline}. Reward: mean over the run; held-out: its last;'
    ' intervals: t, of the mean over seeds.'
  )
  return Table('Variants', heads, rows, note)


def _aligned(lines: Iterable[Aligned]) -> Table:
  heads = ['family', 'against', 'pairs', 'weight lost', 'reward', "other's"]
  heads += ['difference', '95 %']
  rows = [
    [
      line.family,
      line.other,
      str(line.num_pairs),
      _number(line.dropped, '.2%'),
      _number(line.reward),
      _number(line.other_reward),
      *_estimate(line.difference, '+.3f'),
    ]
    for line in lines
  ]
  note = (
    'Linear interpolation between the thresholds of a family, in the middle of'
    ' the masked shares that both cover (mean of 1 - M: a soft rule weights'
    ' tokens instead of masking them); seeds without overlap are excluded.'
  )
  return Table('At equal masked share', heads, rows, note)


def _failures(failed: Sequence[Outcome]) -> Text:
  lines = ['The same command retries them; see log.txt in their folders.']
  for one in failed:
    lines += [f'{one.job.name}, seed {one.job.seed}: {one.error}']
    lines += [f'  {one.folder}']
  return Text('Not finished', '\n'.join(lines))


def _settings(sweep: Sweep) -> Text:
  lines = [' '.join(sweep.arguments), '']
  for variant in sweep.variants:
    listed = ', '.join(f'{k}={v}' for k, v in variant.overrides.items())
    lines.append(f'{variant.name}: {listed or "as in the config"}')
  lines += ['', f'{RUNS} has the folder of every run.']
  return Text('Settings', '\n'.join(lines))


def _panels(
  found: Points,
  condensed: Points,
  num_variants: int,
  families: dict[str, list[str]],
) -> list[Panel]:
  """Panels of the plotted variants: the first ones only, if there are many."""
  names = found.values('variant')
  few = ''
  if len(names) < num_variants:
    few = f', first {len(names)} of {num_variants}'
  curves, bars = _labeled(found, names), _labeled(condensed, names)
  drawn = [
    *facets.apart(
      panels.over_steps(curves, 'reward', f'Reward{few}', 'mean reward')
    ),
    *facets.apart(
      panels.over_steps(curves, 'masked', 'Masked', 'share of tokens')
    ),
    panels.bars(bars, 'reward', 'Over the run', 'mean reward'),
  ]
  many = {html_page.label(k): v for k, v in families.items() if len(v) > 1}
  if many:
    title = 'By masked share'
    drawn.append(panels.against(condensed, 'dropped', 'reward', title, many))
  return drawn


def _labeled(found: Points, names: Sequence[str]) -> Points:
  rows = [row for row in found.rows if row['variant'] in names]
  return Points([{**r, 'variant': html_page.label(r['variant'])} for r in rows])


def _collapsed(line: Line) -> str:
  if not line.num_judged:
    return _NONE
  seeds = f': {", ".join(line.collapsed)}' if line.collapsed else ''
  return f'{len(line.collapsed)}/{line.num_judged}{seeds}'


def _estimate(found: Estimate, form: str = '.3f') -> list[str]:
  ends = [_number(end, form) for end in (found.low, found.high)]
  interval = _NONE if _NONE in ends else f'[{ends[0]}, {ends[1]}]'
  return [_number(found.value, form), interval]


def _number(value: float, form: str = '.3f') -> str:
  return format(value, form) if math.isfinite(value) else _NONE
