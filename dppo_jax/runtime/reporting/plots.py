"""The style of the package's plots, drawn without a display.

Everything that draws (summary.png, the ledger, the figures) makes its figure
and dresses its axes here, so that they look alike.
"""

from typing import Any

BLUE, ORANGE, GREEN, GRAY = '#2b6cb0', '#d97706', '#4d7c0f', '#6b7280'
BLACK = '#1a202c'


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
