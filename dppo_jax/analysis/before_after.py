"""What training changed: held-out accuracy before and after, with samples."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from dppo_jax.analysis import drawing
from dppo_jax.analysis.panels import Panel, Series
from dppo_jax.runtime.storage import metrics_log, workdir

_SAMPLED = 'evaluation/sampled_accuracy'
_GREEDY = 'evaluation/greedy_accuracy'
_SHOWN = 60  # Characters of a prompt's end, and of a completion.


def summarize(folders: Sequence[pathlib.Path]) -> dict[str, Any]:
  """Numbers of runs, as JSON can hold them.

  Args:
    folders: of finished runs, which differ in nothing but the seed.

  Returns:
    'runs', a list of: seed, number of steps, CPU-seconds of the steps, sampled
    accuracy before and after as [mean, low, high], greedy accuracy before and
    after; and 'mean_rise', 'least_rise' of the sampled accuracy.

  Raises:
    ValueError: a folder holds no run, or one without two evaluations.
  """
  runs = [_summarize(folder) for folder in folders]
  rises = [run['sampled'][1][0] - run['sampled'][0][0] for run in runs]
  return {
    'runs': runs,
    'mean_rise': float(np.mean(rises)),
    'least_rise': min(rises),
  }


def _summarize(folder: pathlib.Path) -> dict[str, Any]:
  seed = workdir.read_config(folder)['seed']
  rows = metrics_log.read_rows(folder / metrics_log.METRICS_FILE)
  ends = [row for row in rows if _SAMPLED in row]
  if len(ends) < 2:
    raise ValueError(
      f'{folder}: has {len(ends)} of the two evaluations, before and after'
      ' training; finish the run with the command that began it.'
    )
  found: dict[str, Any] = {'seed': seed, 'num_steps': ends[-1]['step']}
  cost = [row['time/step_cpu_s'] for row in rows if 'time/step_cpu_s' in row]
  found['step_cpu_s'] = round(float(np.sum(cost)), 1)
  both = (ends[0], ends[-1])
  found['sampled'] = [
    [end[_SAMPLED], end[f'{_SAMPLED}_low'], end[f'{_SAMPLED}_high']]
    for end in both
  ]
  if all(_GREEDY in end for end in both):
    found['greedy'] = [end[_GREEDY] for end in both]
  return found


def describe(folders: Sequence[pathlib.Path], num_samples: int) -> str:
  """Text: accuracies of every run, and samples of the first one.

  Args:
    folders: as of `summarize`.
    num_samples: completions shown of the first and of the last recorded step.

  Raises:
    ValueError: as of `summarize`.
  """
  found = summarize(folders)
  lines = ['Held-out accuracy, before -> after']
  for run in found['runs']:
    before, after = (
      f'{mean:.3f} [{low:.3f}, {high:.3f}]'
      for mean, low, high in run['sampled']
    )
    line = f'  seed {run["seed"]}: sampled {before} -> {after}'
    if 'greedy' in run:
      line += f'; greedy {run["greedy"][0]:.3f} -> {run["greedy"][1]:.3f}'
    lines.append(
      f'{line}; {run["num_steps"]} steps, {run["step_cpu_s"]:,.0f} CPU-s'
    )
  lines.append(
    f'  sampled accuracy rises by {found["mean_rise"]:+.3f} on average, by'
    f' {found["least_rise"]:+.3f} at least'
  )
  return '\n'.join([*lines, *_samples(folders[0], num_samples)])


def _samples(folder: pathlib.Path, number: int) -> list[str]:
  """Lines on completions of the first and of the last recorded step."""
  rows = metrics_log.read_rows(folder / metrics_log.SAMPLES_FILE)
  steps = sorted({row['step'] for row in rows})
  lines = []
  for step in dict.fromkeys((*steps[:1], *steps[-1:])):
    lines.append(f'Samples of step {step}')
    for row in [row for row in rows if row['step'] == step][:number]:
      prompt = str(row['prompt']).rstrip().rpartition('\n')[2][-_SHOWN:]
      lines.append(
        f'  {prompt}{str(row["completion"])[:_SHOWN]!r}  {row["reward"]:g}'
      )
  return lines


def draw(folders: Sequence[pathlib.Path], path: pathlib.Path) -> None:
  """Draws reward over steps, and both ends of the held-out accuracy.

  Args:
    folders: as of `summarize`.
    path: without suffix; .png and .svg are written.

  Raises:
    ValueError: as of `summarize`.
  """
  found = summarize(folders)
  curves = [
    _curve(folder, run)
    for folder, run in zip(folders, found['runs'], strict=True)
  ]
  ends = [_ends(run) for run in found['runs']]
  panels = [
    Panel(
      title='Mean reward of a step',
      x_label='train step',
      y_label='mean reward',
      series=curves,
    ),
    Panel(
      title='Held-out sampled accuracy',
      x_label='train step',
      y_label='accuracy, 95 % interval',
      series=ends,
    ),
  ]
  drawing.draw(path, f'{len(folders)} seeds, before and after', panels)


def _curve(folder: pathlib.Path, run: Mapping[str, Any]) -> Series:
  rows = metrics_log.read_rows(folder / metrics_log.METRICS_FILE)
  rows = [row for row in rows if 'rewards/mean' in row]
  return Series(
    label=f'seed {run["seed"]}',
    x=np.asarray([row['step'] for row in rows], float),
    y=np.asarray([row['rewards/mean'] for row in rows], float),
  )


def _ends(run: Mapping[str, Any]) -> Series:
  mean, low, high = np.asarray(run['sampled'], float).T
  return Series(
    label=f'seed {run["seed"]}',
    x=np.asarray([0, run['num_steps']], float),
    y=mean,
    low=low,
    high=high,
    kind='marks',
  )
