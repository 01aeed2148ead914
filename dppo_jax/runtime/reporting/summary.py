"""The summary of a run: summary.json and summary.png."""

from collections.abc import Mapping, Sequence
import json
import math
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from dppo_jax import bounded_json
from dppo_jax.runtime.reporting import palette, plots
from dppo_jax.runtime.storage import metrics_log
from dppo_jax.runtime.storage.files import open_atomically, write_atomically

SUMMARY_FILE = 'summary.json'
PICTURE_FILE = 'summary.png'

_MAX_FACTS = 12


class Curve(NamedTuple):
  """A metric and how it is drawn.

  Attributes:
    metric: its key.
    label: its name in the legend; '' if it is the only one.
    scale: what the values are multiplied by, 100 for a share in per cent.
    sparse: measured now and then, so drawn as points.
  """

  metric: str
  label: str = ''
  scale: float = 1.0
  sparse: bool = False


class MetricPlot(NamedTuple):
  """The metrics of one plot of summary.png.

  Attributes:
    title: what it shows.
    unit: label of the vertical axis.
    curves: one or two metrics of that unit.
    wide: spans decades, so the axis is logarithmic where the values allow.
    limits: of the vertical axis; None fits them to the values.
  """

  title: str
  unit: str
  curves: tuple[Curve, ...]
  wide: bool = False
  limits: tuple[float, float] | None = None


PLOTS = (
  MetricPlot('Reward of the rollouts', 'mean reward', (Curve('rewards/mean'),)),
  MetricPlot(
    'Held out',
    'share correct',
    (
      Curve('evaluation/sampled_accuracy', 'sampled', sparse=True),
      Curve('evaluation/greedy_accuracy', 'greedy', sparse=True),
    ),
    limits=(-0.03, 1.03),
  ),
  MetricPlot(
    'Trainer against sampler',
    'mean |π − μ|, probability',
    (Curve('mismatch/mean_abs'),),
    wide=True,
  ),
  MetricPlot(
    'Divergence',
    'per token (TV: probability, KL: nats)',
    (
      Curve('trust_region/divergence_mean', 'mean'),
      Curve('trust_region/divergence_max', 'max'),
    ),
    wide=True,
  ),
  MetricPlot(
    'Masked',
    '% of tokens',
    (
      Curve('trust_region/fraction_masked', 'M = 0', scale=100.0),
      Curve('trust_region/mean_dropped_weight', 'mean 1 − M', scale=100.0),
    ),
  ),
  MetricPlot(
    'Completion length', 'tokens, mean', (Curve('rollout/length_mean'),)
  ),
  MetricPlot(
    'Entropy', 'nats per token, mean', (Curve('rollout/entropy_mean'),)
  ),
)


def write_summary(
  workdir: str | os.PathLike[str], summary: Mapping[str, Any]
) -> None:
  """Writes summary.json; a reader sees the old file or the new one.

  Args:
    workdir: folder of the run.
    summary: text and scalars, nested as wished; a non-finite number becomes
      "NaN", "Infinity" or "-Infinity".
  """
  path = pathlib.Path(workdir) / SUMMARY_FILE
  text = json.dumps(
    _to_json(summary), indent=2, ensure_ascii=False, allow_nan=False
  )
  write_atomically(path, text + '\n')


def read_summary(workdir: str | os.PathLike[str]) -> dict[str, Any] | None:
  """Reads summary.json; None if there is none or it is damaged."""
  path = pathlib.Path(workdir) / SUMMARY_FILE
  try:
    return bounded_json.read_object(path)
  except (OSError, ValueError):
    return None


def draw_summary(workdir: str | os.PathLike[str]) -> pathlib.Path:
  """Draws metrics.jsonl, and the facts of summary.json beside it.

  A metric that is not there leaves a plot that says so.

  Args:
    workdir: folder of the run.

  Returns:
    Path of summary.png.
  """
  workdir = pathlib.Path(workdir)
  rows = metrics_log.read_rows(workdir / metrics_log.METRICS_FILE)
  figure = plots.make_figure(15, 6.6, dpi=100)
  axes = figure.subplots(2, 4)
  for plot, axis in zip(PLOTS, axes.flat, strict=False):
    _draw_plot(axis, plot, rows)
  _draw_facts(axes.flat[len(PLOTS)], workdir / SUMMARY_FILE)
  path = workdir / PICTURE_FILE
  with open_atomically(path) as file:
    figure.savefig(file, format='png')
  return path


def series(
  rows: Sequence[Mapping[str, Any]], metric: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns steps and values of the rows that hold a metric.

  Args:
    rows: of metrics.jsonl.
    metric: its key.

  Returns:
    Steps i64 [n] and values f64 [n], NaN and infinities among them.
  """
  found = [(row['step'], float(row[metric])) for row in rows if metric in row]
  steps = np.array([step for step, _ in found], np.int64)
  return steps, np.array([value for _, value in found], np.float64)


def _to_json(value: Any) -> Any:
  if value is None or isinstance(value, str | bool):
    return value
  if isinstance(value, Mapping):
    return {str(key): _to_json(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_to_json(item) for item in value]
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  return metrics_log.to_json(value)


def _draw_plot(
  axis: Any, plot: MetricPlot, rows: Sequence[Mapping[str, Any]]
) -> None:
  plots.dress(axis, plot.title, 'train step', plot.unit)
  missing: list[str] = []
  drawn: list[np.ndarray] = []
  at: list[int] = []
  for curve, color, line in zip(
    plot.curves, palette.OTHERS, ('-', '--'), strict=False
  ):
    steps, values = series(rows, curve.metric)
    finite = np.isfinite(values)
    steps, values = steps[finite], curve.scale * values[finite]
    if values.size:
      _draw_curve(axis, curve, palette.Style(color, line), steps, values)
      drawn.append(values)
      at += steps.tolist()
    else:
      missing.append(curve.metric)
  if missing:
    # Below the curves of the others, if there are any.
    axis.text(
      0.5,
      0.5 if not drawn else 0.04,
      'metrics.jsonl has no finite\n' + '\n'.join(missing),
      transform=axis.transAxes,
      ha='center',
      va='center' if not drawn else 'bottom',
      fontsize=9,
      color=palette.GRAY,
    )
  if not drawn:
    axis.set_xticks([])
    axis.set_yticks([])
    return
  _scale(axis, plot, np.concatenate(drawn))
  plots.tick_steps(axis, at)
  if len(drawn) > 1:
    # Above the axes, where no curve is.
    axis.legend(
      fontsize=8.5,
      frameon=False,
      loc='lower right',
      bbox_to_anchor=(1.02, 0.985),
      ncols=2,
      borderpad=0,
      columnspacing=1.0,
      handlelength=1.2,
    )


def _draw_curve(
  axis: Any,
  curve: Curve,
  style: palette.Style,
  steps: np.ndarray,
  values: np.ndarray,
) -> None:
  color, line = style
  label = curve.label or None
  if curve.sparse or values.size < 3:
    # The second one hollow and larger: it may stand on the first.
    first = line == '-'
    axis.plot(
      steps,
      values,
      marker='o',
      ls=line,
      lw=1.2,
      ms=4 if first else 7,
      mfc=color if first else 'none',
      color=color,
      label=label,
    )
    return
  smooth = _moving_mean(values, values.size // 40)
  axis.plot(steps, values, lw=0.8, alpha=0.35, color=color)
  axis.plot(steps, smooth, line, lw=1.8, color=color, label=label)


def _scale(axis: Any, plot: MetricPlot, values: np.ndarray) -> None:
  positive = values[values > 0]
  if plot.wide and positive.size and positive.max() > 30 * positive.min():
    plots.scale_log(axis, 'y')
    return
  # A common power of ten would stand on the title.
  axis.yaxis.set_major_formatter('{x:.4g}')
  if plot.limits is not None:
    axis.set_ylim(*plot.limits)
  elif not values.any():
    axis.set_ylim(-0.03, 1)  # No share or length is below 0.
  elif np.ptp(values) == 0:
    # Or the axis would magnify rounding around a constant.
    margin = 0.5 * abs(values[0])
    axis.set_ylim(values[0] - margin, values[0] + margin)


def _moving_mean(values: np.ndarray, reach: int) -> np.ndarray:
  """Mean of each value and the `reach` on either side, fewer at the ends."""
  sums = np.concatenate([[0.0], np.cumsum(values)])
  places = np.arange(values.size)
  starts = np.maximum(places - reach, 0)
  ends = np.minimum(places + reach + 1, values.size)
  return (sums[ends] - sums[starts]) / (ends - starts)


def _draw_facts(axis: Any, path: pathlib.Path) -> None:
  axis.set_axis_off()
  facts = read_summary(path.parent)
  if facts is None:
    return
  lines = [
    (name, _show(value))
    for name, value in facts.items()
    if isinstance(value, str | int | float) and not isinstance(value, bool)
  ]
  axis.set_title('Summary', fontsize=11, loc='left')
  for number, (name, text) in enumerate(lines[:_MAX_FACTS]):
    y = 0.95 - number / _MAX_FACTS
    axis.text(0.0, y, name, fontsize=8.5, color=palette.GRAY, va='top')
    axis.text(1.0, y, text, fontsize=8.5, ha='right', va='top')


def _show(value: str | float) -> str:
  if isinstance(value, str):
    return value if len(value) <= 24 else f'{value[:23]}…'
  if isinstance(value, int) or abs(value) >= 1000:
    return f'{value:,.0f}'
  return f'{value:.4g}' if math.isfinite(value) else str(value)
