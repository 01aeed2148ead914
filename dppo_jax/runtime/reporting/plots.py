"""The style of the package's plots, drawn without a display.

Everything that draws (summary.png, the ledger, the figures) makes its figure
and dresses its axes here, so that they look alike.
"""

from collections.abc import Iterable
import math
from typing import Any

from dppo_jax.runtime.reporting import palette

# Decades from which powers of ten suffice on an axis.
_DECADES = 2.5


def make_figure(width: float, height: float, dpi: int) -> Any:
  """An empty matplotlib Figure with a canvas of pixels.

  Args:
    width: inches.
    height: inches.
    dpi: pixels per inch.
  """
  # Only here: the import takes longer than any other of the package.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), dpi=dpi, layout='constrained')
  FigureCanvasAgg(figure)
  # Inches between panels, or the label of one stands beside the next.
  layout: Any = figure.get_layout_engine()
  layout.set(w_pad=0.08, h_pad=0.08, wspace=0.03)
  return figure


def dress(axis: Any, title: str, x_label: str, y_label: str) -> None:
  """Gives the axes of a plot their title, labels and grid.

  Args:
    axis: of a figure, changed in place.
    title: what the plot shows.
    x_label: of the horizontal axis, with its unit.
    y_label: of the vertical one.
  """
  axis.set_title(title, fontsize=10.5, loc='left')
  axis.set_xlabel(x_label, fontsize=9)
  axis.set_ylabel(y_label, fontsize=9)
  axis.tick_params(labelsize=8)
  axis.grid(color='#e5e7eb', linewidth=0.8)
  axis.set_axisbelow(True)
  axis.spines[['top', 'right']].set_visible(False)


def say_nothing(axis: Any, text: str) -> None:
  """Says in the middle of empty axes why they are empty."""
  axis.set_xticks([])
  axis.set_yticks([])
  axis.text(
    *(0.5, 0.5),
    text,
    transform=axis.transAxes,
    ha='center',
    va='center',
    fontsize=9,
    color=palette.GRAY,
  )


def scale_log(axis: Any, which: str) -> None:
  """Makes an axis logarithmic, with plain numbers that do not touch.

  Args:
    axis: that already shows its numbers.
    which: 'x' or 'y'.
  """
  from matplotlib import ticker

  axis.set(**{f'{which}scale': 'log'})
  low, high = getattr(axis, f'get_{which}lim')()
  of = getattr(axis, f'{which}axis')
  decades = math.log10(high / low)
  if decades >= _DECADES:
    return
  if decades < 1:
    of.set_major_locator(ticker.MaxNLocator(5, steps=[1, 2, 5, 10]))
  else:
    of.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
  of.set_major_formatter(ticker.FuncFormatter(lambda value, _: f'{value:g}'))
  of.set_minor_formatter(ticker.NullFormatter())


def tick_steps(axis: Any, steps: Iterable[float]) -> None:
  """Gives a step axis whole numbers, also where there is one step only."""
  from matplotlib import ticker

  found = {float(step) for step in steps}
  if len(found) == 1:
    axis.set_xticks(list(found), [f'{step:g}' for step in found])
  else:
    axis.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
