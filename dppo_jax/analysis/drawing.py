"""Plots of panels, as PNG and SVG, in one style."""

from collections.abc import Collection, Mapping, Sequence
import math
import pathlib
from typing import Any

import numpy as np

from dppo_jax.analysis.panels import Panel, Series
from dppo_jax.runtime.reporting import palette, plots
from dppo_jax.runtime.reporting.palette import Style
from dppo_jax.runtime.storage.files import open_atomically

# Settings for reproducible files, without dropped points.
_RC: dict[Any, Any] = {
  'svg.hashsalt': 'dppo_jax',
  'svg.fonttype': 'none',
  'path.simplify': False,
  'font.family': 'DejaVu Sans',
}
_MAX_COLUMNS = 3
_BAR = 0.65  # Opacity of bars, on which black error bars are seen.
# Inches: of a panel, and of the widest picture, so that text stays legible
# when a page shows it at half its size.
_WIDTH, _MAX_WIDTH, _HEIGHT, _TITLE = 4.2, 13.0, 3.0, 1.3


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

  Raises:
    ValueError: bars on a logarithmic axis.
  """
  import matplotlib  # Imported here: it is slow.

  with matplotlib.rc_context(_RC):
    figure = render(title, panels)
    for ending in ('png', 'svg'):
      facts = {'Date': None} if ending == 'svg' else {}
      with open_atomically(path.with_name(f'{path.name}.{ending}')) as file:
        figure.savefig(file, format=ending, metadata=facts)


def render(title: str, panels: Sequence[Panel]) -> Any:
  """Figure of the panels; see `draw`."""
  rows = _rows(panels)
  most = max(map(len, rows))
  width = min(max(_WIDTH * most, 7.0), _MAX_WIDTH)
  figure = plots.make_figure(width, _HEIGHT * len(rows) + _TITLE, dpi=110)
  figure.suptitle(title, fontsize=11)
  chosen = palette.styles(s.label for p in panels for s in p.series)
  handles: dict[str, Any] = {}
  # Every row fills the width, so that none ends in an empty place.
  across = math.lcm(*map(len, rows))
  grid = figure.add_gridspec(len(rows), across)
  i = 0
  for place, row in enumerate(rows):
    span = across // len(row)
    axes = [
      figure.add_subplot(grid[place, span * k : span * (k + 1)])
      for k in range(len(row))
    ]
    for axis, panel in zip(axes, row, strict=True):
      handles |= _draw_panel(axis, panel, i, chosen, handles)
      i += 1
    if row[0].row:
      limits = [end for axis in axes for end in axis.get_ylim()]
      for axis in axes:
        axis.set_ylim(min(limits), max(limits))
  if len(handles) > 1:
    figure.legend(
      handles.values(),
      handles.keys(),
      loc='outside lower center',
      ncols=min(2 * most if most > 1 else 3, _columns(handles, width)),
      fontsize=9,
      frameon=False,
    )
  return figure


def _columns(labels: Collection[str], width: float) -> int:
  """Columns of a legend across `width` inches, at least one."""
  # Of the font in use; and the line with its gaps.
  inches = 0.085 * max(map(len, labels)) + 0.6
  return max(1, min(len(labels), int(width / inches)))


def _rows(panels: Sequence[Panel]) -> list[list[Panel]]:
  """Panels by row: those of one name together, the others spread evenly."""
  rows: list[list[Panel]] = []
  for panel in panels:
    before = rows[-1] if rows else []
    if before and before[0].row == panel.row:
      before.append(panel)
    else:
      rows.append([panel])
  spread = []
  for row in rows:
    if row[0].row:
      spread.append(row)
      continue
    size = math.ceil(len(row) / math.ceil(len(row) / _MAX_COLUMNS))
    spread += [row[k : k + size] for k in range(0, len(row), size)]
  return spread


def _draw_panel(
  axis: Any,
  panel: Panel,
  number: int,
  chosen: Mapping[str, Style],
  handles: Mapping[str, Any],
) -> dict[str, Any]:
  """Draws a panel; returns what is new in the legend, by label."""
  found: dict[str, Any] = {}
  for j, series in enumerate(panel.series):
    artist = _draw_series(axis, series, chosen[series.label], panel.y_log)
    artist.set_gid(f'series-{number}-{j}')
    if series.label not in panel.ticks and series.label not in handles:
      found.setdefault(series.label, artist)
  for bound in panel.bounds:
    axis.axhline(bound.value, color=bound.color, lw=1.3, ls='--')
    axis.annotate(
      bound.label,
      (0.01, bound.value),
      xycoords=('axes fraction', 'data'),
      xytext=(0, 2),
      textcoords='offset points',
      fontsize=8,
      color=palette.BLACK,
    )
  _dress(axis, panel)
  if not any(np.isfinite(series.y).any() for series in panel.series):
    plots.say_nothing(axis, 'no finite value')
  return found


def _draw_series(axis: Any, series: Series, style: Style, y_log: bool) -> Any:
  """Artist of a series, which holds its numbers."""
  spread = series.low is not None and series.high is not None
  if series.kind == 'bars':
    if y_log:
      raise ValueError(
        f'{series.label}: a bar begins at 0, which no logarithmic axis has;'
        ' plot points.'
      )
    (artist,) = axis.bar(series.x, series.y, 0.7, color=style.color, alpha=_BAR)
  elif series.kind == 'dots':
    return axis.plot(
      series.x, series.y, '.', ms=4, alpha=0.45, mew=0, color=style.color
    )[0]
  else:
    joined = series.kind != 'points'
    # A line of one point has no length: its marker is what one sees.
    marked = series.kind != 'line' or np.size(series.x) == 1
    (artist,) = axis.plot(
      series.x,
      series.y,
      ls=style.line if joined else 'none',
      # Broken lines above whole ones, which they may follow.
      zorder=2.0 if style.line == '-' else 2.2,
      marker='o' if marked else '',
      ms=5,
      lw=1.6,
      color=style.color,
    )
  if spread and series.kind == 'line' and np.size(series.x) > 1:
    axis.fill_between(
      series.x, series.low, series.high, color=style.color, alpha=0.15, lw=0
    )
  elif spread:
    axis.errorbar(
      series.x,
      series.y,
      [series.y - series.low, series.high - series.y],
      fmt='none',
      ecolor=palette.BLACK if series.kind == 'bars' else style.color,
      elinewidth=1.2,
      capsize=3,
    )
  return artist


def _dress(axis: Any, panel: Panel) -> None:
  plots.dress(axis, panel.title, panel.x_label, panel.y_label)
  for which, log in (('x', panel.x_log), ('y', panel.y_log)):
    if log:
      plots.scale_log(axis, which)
  if panel.ticks:
    long = sum(map(len, panel.ticks)) > 36
    axis.set_xticks(
      np.arange(len(panel.ticks)),
      panel.ticks,
      rotation=35 if long else 0,
      ha='right' if long else 'center',
      fontsize=8,
    )
  elif panel.x_label.startswith('train step'):
    plots.tick_steps(axis, (x for s in panel.series for x in s.x))
  elif not panel.x_log:
    axis.locator_params(axis='x', nbins=6)  # More labels would overlap.
