"""Runs side by side: their configs, metrics, curves and ledgers.

--out holds points.csv, every step of every run; compare.png and compare.svg;
compare.html, which needs no other file.
"""

from collections.abc import Iterator, Mapping, Sequence
import itertools
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from dppo_jax.analysis import (
  drawing,
  facets,
  html_page,
  panels,
  run_tables,
  table,
)
from dppo_jax.analysis.html_page import Part, Picture, Table
from dppo_jax.analysis.jobs.job import Job, Outcome
from dppo_jax.analysis.panels import Panel
from dppo_jax.analysis.sweeps import labels, masked_sets
from dppo_jax.analysis.table import Points
from dppo_jax.runtime.ledger import files
from dppo_jax.runtime.storage import metrics_log, workdir

PAGE = 'compare.html'
PICTURE = 'compare'
POINTS = 'points.csv'
MAX_RUNS = 12
_NONE = '–'
_CURVES = (
  ('reward', 'Reward', 'mean reward'),
  ('held_out', 'Held-out accuracy', 'share correct'),
  ('mean_abs', 'Mean of |π − μ|', 'probability'),
  ('masked', 'Masked', 'share of tokens'),
  ('entropy', 'Entropy', 'nats per token'),
)


class Run(NamedTuple):
  """A folder of a run.

  Attributes:
    label: what differs in its config, or its folder; no other has the same.
    folder: where it is.
    config: as resolved, by dotted path.
    metrics: by step.
  """

  label: str
  folder: pathlib.Path
  config: Mapping[str, Any]
  metrics: Mapping[int, Mapping[str, Any]]


def compare(folders: Sequence[str], out: pathlib.Path) -> str:
  """Text to print, after writing the comparison of runs to a folder.

  Args:
    folders: of the runs, two or more.
    out: folder of the plots and the page, created if absent.

  Raises:
    ValueError: too few or many folders, or folders without a run; names all.
  """
  runs = read(folders)
  out = workdir.open_workdir(out)
  table.write(out / POINTS, _rows(runs))
  found = table.read(out / POINTS)
  tables = [_configs(runs), _finals(runs), *_ledgers(runs)]
  title = f'{len(runs)} runs side by side'
  drawing.draw(out / PICTURE, title, _panels(found))
  named = Table(
    'Runs', ['run', 'folder'], [[r.label, str(r.folder)] for r in runs]
  )
  picture = Picture('Curves', out / f'{PICTURE}.png')
  parts: list[Part] = [named, *tables, picture]
  html_page.write(out / PAGE, title, parts)
  printed = [*map(html_page.to_text, (named, *tables)), f'Page: {out / PAGE}']
  return '\n\n'.join(printed)


def read(folders: Sequence[str]) -> list[Run]:
  """Runs in these folders.

  Raises:
    ValueError: see `compare`.
  """
  if not 2 <= len(folders) <= MAX_RUNS:
    raise ValueError(
      f'got {len(folders)} run folders; name 2 to {MAX_RUNS}: dppo'
      ' compare RUN RUN.'
    )
  paths = [pathlib.Path(name).expanduser().resolve() for name in folders]
  twice = [str(path) for path in paths if paths.count(path) > 1]
  if twice:
    raise ValueError(f'{twice[0]}: named twice.')
  problems, runs = [], []
  for path in paths:
    try:
      runs.append(_read(path))
    except ValueError as error:
      problems.append(str(error))
  if problems:
    raise ValueError('\n'.join(problems))
  named = labels.label_runs(paths, [run.config for run in runs])
  return [
    run._replace(label=label) for run, label in zip(runs, named, strict=True)
  ]


def _read(path: pathlib.Path) -> Run:
  """A run, whose label is still that of its folder."""
  if not path.is_dir():
    raise ValueError(f'{path}: there is no such folder.')
  if not (path / workdir.CONFIG).is_file():
    below = sorted(p.parent.name for p in path.glob(f'*/{workdir.CONFIG}'))
    hint = f' Runs in it: {", ".join(below[:4])}.' if below else ''
    raise ValueError(f'{path}: holds no run: it has no {workdir.CONFIG}.{hint}')
  try:
    config = workdir.read_config(path)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  if not isinstance(config, dict):
    raise ValueError(f'{path}: its {workdir.CONFIG} is damaged.')
  nothing: Job = Job(name=path.name, config={})
  try:
    metrics = run_tables.steps(Outcome(job=nothing, folder=path, error=''))
  except (TypeError, ValueError) as error:
    raise ValueError(
      f'{path}: its {metrics_log.METRICS_FILE} is damaged ({error}).'
    ) from error
  if not metrics:
    raise ValueError(
      f'{path}: has not trained yet: no line in {metrics_log.METRICS_FILE}.'
    )
  return Run(path.name, path, dict(_flat(config)), metrics)


def _flat(
  tree: Mapping[str, Any], prefix: str = ''
) -> Iterator[tuple[str, Any]]:
  for key, value in tree.items():
    if isinstance(value, Mapping) and value:
      yield from _flat(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value


def _rows(runs: Sequence[Run]) -> Iterator[table.Row]:
  for run in runs:
    for step, metrics in run.metrics.items():
      yield {
        'variant': run.label,
        'step': step,
        **{
          name: _value(metrics, key) for name, key in run_tables.COLUMNS.items()
        },
      }


def _value(metrics: Mapping[str, Any], key: str) -> float:
  try:
    return float(metrics[key])
  except (KeyError, TypeError, ValueError):
    return math.nan


def _configs(runs: Sequence[Run]) -> Table:
  """Table of the keys in which configs differ."""
  heads = ['key', *(run.label for run in runs)]
  rows = []
  for key in sorted(set().union(*(run.config for run in runs))):
    cells = [
      str(run.config[key]) if key in run.config else 'absent' for run in runs
    ]
    if len(set(cells)) > 1:
      rows.append([key, *cells])
  note = '' if rows else 'The configs are equal.'
  return Table('Configs, where they differ', heads, rows, note)


def _finals(runs: Sequence[Run]) -> Table:
  """Table of metrics: the last value, and the mean over the run."""
  heads = ['metric', *(run.label for run in runs)]
  rows = [['steps', *(str(max(run.metrics)) for run in runs)]]
  for key in run_tables.COLUMNS.values():
    values = [
      np.array([_value(m, key) for m in run.metrics.values()]) for run in runs
    ]
    finite = [found[np.isfinite(found)] for found in values]
    if any(found.size for found in finite):
      rows.append([f'{key}, last', *(_cell(f[-1:]) for f in finite)])
      rows.append([f'{key}, mean', *(_cell(f) for f in finite)])
  note = (
    'Last: at the last step with a value. One run per column has no interval: a'
    ' difference may be due to the seed.'
  )
  return Table('Metrics', heads, rows, note)


def _cell(values: np.ndarray) -> str:
  return f'{values.mean():.4g}' if values.size else _NONE


def _ledgers(runs: Sequence[Run]) -> Iterator[Table]:
  """Tables of masked tokens: of each run, and of pairs on shared tokens."""
  steps = {run.label: files.find_steps(run.folder) for run in runs}
  kept = [run for run in runs if steps[run.label]]
  if not kept:
    return
  # Steps recorded by all runs, so that shares are of the same training time.
  common = sorted(set.intersection(*(set(steps[r.label]) for r in kept)))
  if not common:
    rows = [[r.label, f'{len(steps[r.label])} steps'] for r in kept]
    note = 'No step was recorded by every run, so none is compared.'
    yield Table('Ledgers', ['run', 'recorded'], rows, note)
    return
  wanted = ','.join(map(str, common))
  records = {r.label: files.load_steps(r.folder, wanted) for r in kept}
  yield _masked_table(records, common)
  if len(kept) > 1:
    yield _overlap_table(records)


def _masked_table(records: Mapping[str, Any], common: Sequence[int]) -> Table:
  heads = ['run', 'tokens', 'masked', 'of all', 'A<0', 'A>0', 'μ<.1']
  heads.append('weight lost')
  rows = []
  for label, record in records.items():
    found = masked_sets.count(record)
    share = f'{found.masked / max(found.num_tokens, 1):.2%}'
    counts = (found.negative, found.positive, found.rare)
    row = [label, f'{found.num_tokens:,}', f'{found.masked:,}', share]
    lost = f'{found.dropped / max(found.num_tokens, 1):.2%}'
    rows.append([*row, *(f'{n:,}' for n in counts), lost])
  span = f'{len(common)} steps from {common[0]} to {common[-1]}'
  return Table(
    'Ledgers',
    heads,
    rows,
    f'Masked tokens of {span}; weight lost: 1 - M.',
  )


def _overlap_table(records: Mapping[str, Any]) -> Table:
  heads = ['runs', 'shared tokens', 'masked by both', 'first only']
  heads += ['second only', 'both of any']
  rows = []
  for (a, first), (b, second) in itertools.combinations(records.items(), 2):
    found = masked_sets.overlap(first, second)
    counts = (found.num_tokens, found.both, found.first, found.second)
    agreement = found.agreement()
    shown = f'{agreement:.1%}' if math.isfinite(agreement) else _NONE
    rows.append([f'{a} | {b}', *(f'{n:,}' for n in counts), shown])
  note = (
    'Shared: tokens of completions that both runs sampled identically at the'
    ' same place of a step; both of any: masked by both, of those masked by'
    ' either.'
  )
  return Table('Masked sets', heads, rows, note)


def _panels(found: Points) -> list[Panel]:
  labeled = Points(
    [{**row, 'variant': html_page.label(row['variant'])} for row in found.rows]
  )
  drawn = [panels.over_steps(labeled, *curve) for curve in _CURVES]
  there = [panel for panel in drawn if panel.series] or drawn[:1]
  return [part for panel in there for part in facets.apart(panel)]
