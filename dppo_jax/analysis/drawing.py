"""Plots of panels, as PNG and SVG, in one style."""

from collections.abc import Sequence
import math
import pathlib
from typing import Any

import numpy as np

from dppo_jax.analysis.panels import Panel, Series, Style
from dppo_jax.runtime.reporting import plots
from dppo_jax.runtime.storage.files import open_atomically

# Each method of the papers has one style in all figures.
STYLES = {
  'PG-IS': Style('#c53030', '--'),
  'PG-TIS': Style('#d97706', '--'),
  'GRPO-ClipHigher': Style('#4b5563'),
  'MiniRL': Style('#6b46c1'),
  'MiniRL-TIS': Style('#b83280'),
  'DPPO-Binary-TV': Style('#2b6cb0'),
  'DPPO-Binary-KL': Style('#0e7490'),
  'DPPO-TopK-TV': Style('#2f855a'),
  'DPPO-TopK-KL': Style('#84a01c'),
  'CPPO': Style('#1a202c'),
}
_COLORS = (
  '#2b6cb0',
  '#d97706',
  '#2f855a',
  '#b83280',
  '#6b46c1',
  '#c53030',
  '#0e7490',
  '#92400e',
  '#4b5563',
  '#84a01c',
  '#db7093',
  '#1a202c',
)
# Settings for reproducible files, without dropped points.
_RC: dict[Any, Any] = {
  'svg.hashsalt': 'dppo_jax',
  'svg.fonttype': 'none',
  'path.simplify': False,
  'font.family': 'DejaVu Sans',
}
_MAX_COLUMNS = 4
# Number of curves from which lines are thinner and bands fainter.
_CROWD = 4


def draw(
  path: pathlib.Path,
  title: str,
  panels: Sequence[Panel],
) -> None:
  """Writes `path` with the endings .png and .svg.

  Args:
    path: without suffix; the files are replaced atomically.
    title: above the panels; may have several lines.
    panels: at least one.
  """
  import matplotlib  # Imported here: it is slow.

  with matplotlib.rc_context(_RC):
    num_columns = min(len(panels), _MAX_COLUMNS)
    if num_columns > 1 and 2 * (num_columns - 1) >= len(panels):
      num_columns = math.ceil(len(panels) / math.ceil(len(panels) / 4))
    num_rows = math.ceil(len(panels) / num_columns)
    width = max(4.4 * num_columns, 7.0)
    figure = plots.make_figure(width, 3.6 * num_rows + 1.2, dpi=110)
    axes = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
    figure.suptitle(title, fontsize=11)
    chosen = _all_styles(panels)
    handles: dict[str, Any] = {}
    for i, (panel, axis) in enumerate(zip(panels, axes, strict=False)):
      for j, series in enumerate(panel.series):
        crowded = len(panel.series) > _CROWD
        artist = _draw_series(axis, series, chosen[series.label], crowded)
        artist.set_gid(f'series-{i}-{j}')
        if series.label not in panel.ticks:
          handles.setdefault(series.label, artist)
      _dress(axis, panel)
    for axis in axes[len(panels) :]:
      axis.set_axis_off()
    if len(handles) > 1:
      figure.legend(
        handles.values(),
        handles.keys(),
        loc='outside lower center',
        ncols=min(len(handles), 6 if num_columns > 2 else 3),
        fontsize=9,
        frameon=False,
      )
    for ending in ('png', 'svg'):
      facts = {'Date': None} if ending == 'svg' else {}
      with open_atomically(path.with_name(f'{path.name}.{ending}')) as file:
        figure.savefig(file, format=ending, metadata=facts)


def _all_styles(panels: Sequence[Panel]) -> dict[str, Style]:
  """Style of every label; labels without one get the next free color."""
  labels = dict.fromkeys(s.label for p in panels for s in p.series)
  found = {label: STYLES[label] for label in labels if label in STYLES}
  taken = {style.color for style in found.values()}
  free = [color for color in _COLORS if color not in taken] or list(_COLORS)
  others = [label for label in labels if label not in found]
  for place, label in enumerate(others):
    found[label] = Style(free[place % len(free)])
  return found


def _draw_series(axis: Any, series: Series, style: Style, crowded: bool) -> Any:
  """Artist of a series, which holds its numbers."""
  spread = series.low is not None and series.high is not None
  if series.kind == 'bars':
    (bar,) = axis.bar(series.x, series.y, 0.7, color=style.color)
    if spread:
      reach = [series.y - series.low, series.high - series.y]
      axis.errorbar(
        series.x, series.y, reach, fmt='none', ecolor=plots.BLACK, capsize=3
      )
    return bar
  if series.kind == 'dots':
    return axis.plot(
      series.x, series.y, '.', ms=4, alpha=0.45, mew=0, color=style.color
    )[0]
  if spread:
    axis.fill_between(
      series.x,
      series.low,
      series.high,
      color=style.color,
      alpha=0.04 if crowded else 0.13,
      lw=0,
    )
  mark = 'o' if series.kind == 'marks' else ''
  return axis.plot(
    series.x,
    series.y,
    style.line,
    marker=mark,
    ms=4,
    lw=1.1 if crowded else 1.6,
    color=style.color,
  )[0]


def _dress(axis: Any, panel: Panel) -> None:
  plots.dress(axis, panel.title, panel.x_label, panel.y_label)
  if panel.x_log:
    axis.set_xscale('log')
  if panel.y_log:
    # A bar starts at 0, which no logarithmic axis contains.
    bars = any(series.kind == 'bars' for series in panel.series)
    axis.set_yscale('log', nonpositive='clip' if bars else 'mask')
  if panel.ticks:
    axis.set_xticks(
      np.arange(len(panel.ticks)),
      panel.ticks,
      rotation=35,
      ha='right',
      fontsize=8,
    )
  elif not panel.x_log:
    axis.locator_params(axis='x', nbins=6)  # More labels would overlap.
