"""Panels of a figure: series of numbers and their plot styles."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Literal, NamedTuple

import numpy as np

from dppo_jax.analysis.table import Points

# Column -> axis label.
_NAMES = {
  'step': 'train step',
  'position': 'position in the completion, tokens',
  'mu': 'μ, probability of the sampler',
  'ratio': 'ratio π / μ',
  'tv': 'TV |π − μ|',
  'masked': 'share of tokens masked',
  'dropped': 'weight removed, mean of 1 − M',
  'reward': 'mean reward',
}
# Caption of every figure with several seeds.
BANDS = 'Bands and error bars: minimum to maximum over seeds'
Kind = Literal['line', 'marks', 'points', 'bars', 'dots']


class Bound(NamedTuple):
  """A threshold, drawn across a panel.

  Attributes:
    label: beside the line.
    value: on the y axis.
    color: of the rule that has it.
  """

  label: str
  value: float
  color: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
  """Numbers under one label.

  Attributes:
    label: in the legend; a label has one style in all panels.
    x: f64 [n].
    y: f64 [n].
    low: f64 [n], lower end of a band or an error bar; None for none.
    high: f64 [n], its upper end.
    kind: 'line', 'marks' (a line with markers), 'points' (markers with error
      bars), 'dots' (a scatter), or 'bars'.
  """

  label: str
  x: np.ndarray
  y: np.ndarray
  low: np.ndarray | None = None
  high: np.ndarray | None = None
  kind: Kind = 'line'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
  """A plot.

  Attributes:
    title: of the plot.
    x_label: with its unit.
    y_label: with its unit.
    series: to plot.
    x_log: whether the x axis is logarithmic.
    y_log: whether the y axis is logarithmic.
    ticks: labels of x = 0, 1, …; () for numbers.
    bounds: thresholds to draw.
    row: adjacent panels of one name stand in one row, with one y axis; '' for
      wherever there is room.
  """

  title: str
  x_label: str
  y_label: str
  series: Sequence[Series]
  x_log: bool = False
  y_log: bool = False
  ticks: Sequence[str] = ()
  bounds: Sequence[Bound] = ()
  row: str = ''


PanelsFn = Callable[[Points], Sequence[Panel]]


def over_steps(
  points: Points,
  column: str,
  title: str,
  y_label: str,
  *,
  variants: Sequence[str] | None = None,
  y_log: bool = False,
  over: str = 'step',
) -> Panel:
  """Panel with one curve per variant: mean over seeds, band from min to max.

  Args:
    points: with columns variant, seed and `over`.
    column: to plot.
    title: of the panel.
    y_label: of the y axis.
    variants: to plot; None for all.
    y_log: whether the y axis is logarithmic.
    over: column of the x axis, 'step' or 'position'.
  """
  series = []
  for variant in points.values('variant') if variants is None else variants:
    chosen = points.where(variant=variant)
    if not chosen.rows:
      continue
    steps = chosen.numbers(over)
    values = chosen.numbers(column)
    there = ~np.isnan(values) & ~np.isnan(steps)
    x = np.unique(steps[there])
    if not x.size:
      continue
    columns = [values[there & (steps == step)] for step in x]
    series.append(
      Series(
        label=variant,
        x=x,
        y=np.array([c.mean() for c in columns]),
        low=np.array([c.min() for c in columns]),
        high=np.array([c.max() for c in columns]),
      )
    )
  return Panel(
    title=title,
    x_label=_NAMES[over],
    y_label=y_label,
    series=series,
    y_log=y_log,
  )


def columns_over_steps(
  points: Points, columns: Sequence[str], title: str, y_label: str
) -> Panel:
  """Panel with one curve per column, over all rows: mean, band min to max.

  Args:
    points: with columns seed and step.
    columns: to plot.
    title: of the panel.
    y_label: of the y axis.
  """
  series = []
  for column in columns:
    named = [
      {**row, 'variant': column} for row in points.rows if row[column] != ''
    ]
    series += over_steps(Points(named), column, title, y_label).series
  return Panel(
    title=title, x_label='train step', y_label=y_label, series=series
  )


def bars(
  points: Points,
  column: str,
  title: str,
  y_label: str,
  *,
  by: str = 'variant',
  y_log: bool = False,
) -> Panel:
  """Panel with one bar per variant: mean over seeds, error bar min to max.

  Args:
    points: with columns `by` and seed.
    column: averaged over the rows of a seed.
    title: of the panel.
    y_label: of the y axis.
    by: column with one bar per value.
    y_log: whether the y axis is logarithmic. It has no 0 from which a bar
      could begin, so there are points instead.
  """
  names = [
    name
    for name in points.values(by)
    if points.by_seed(column, **{by: name}).size
  ]
  series = []
  for place, name in enumerate(names):
    means = points.by_seed(column, **{by: name})
    series.append(
      Series(
        label=name,
        x=np.array([float(place)]),
        y=np.array([means.mean()]),
        low=np.array([means.min()]),
        high=np.array([means.max()]),
        kind='points' if y_log else 'bars',
      )
    )
  return Panel(
    title=title,
    x_label='',
    y_label=y_label,
    series=series,
    y_log=y_log,
    ticks=names,
  )


def grouped(
  points: Points,
  column: str,
  title: str,
  y_label: str,
  *,
  ordered: bool = True,
) -> Panel:
  """Panel with one marker per variant and label: means over seeds.

  Args:
    points: with columns variant, seed and label.
    column: of numbers.
    title: of the panel.
    y_label: of the y axis.
    ordered: whether the labels have an order, so that a line may join them.
  """
  labels = points.values('label')
  variants = points.values('variant')
  series = []
  for number, variant in enumerate(variants):
    # Side by side, or one error bar would hide another.
    aside = 0.5 * (number - (len(variants) - 1) / 2) / max(len(variants), 1)
    found = [
      points.by_seed(column, variant=variant, label=label) for label in labels
    ]
    there = [place for place, seeds in enumerate(found) if seeds.size]
    series.append(
      Series(
        label=variant,
        x=np.array(there, np.float64) + aside,
        y=np.array([found[place].mean() for place in there]),
        low=np.array([found[place].min() for place in there]),
        high=np.array([found[place].max() for place in there]),
        kind='marks' if ordered else 'points',
      )
    )
  return Panel(
    title=title, x_label='', y_label=y_label, series=series, ticks=labels
  )


def dots(
  points: Points,
  x_column: str,
  y_column: str,
  title: str,
  *,
  y_log: bool = False,
  bounds: Sequence[Bound] = (),
) -> Panel:
  """Scatter plot, one color per variant; x is logarithmic."""
  series = [
    Series(
      label=variant,
      x=points.where(variant=variant).numbers(x_column),
      y=points.where(variant=variant).numbers(y_column),
      kind='dots',
    )
    for variant in points.values('variant')
  ]
  return Panel(
    title=title,
    x_label=_NAMES.get(x_column, x_column),
    y_label=_NAMES.get(y_column, y_column),
    series=series,
    x_log=True,
    y_log=y_log,
    bounds=bounds,
  )


def against(
  points: Points,
  x_column: str,
  y_column: str,
  title: str,
  families: Mapping[str, Sequence[str]],
) -> Panel:
  """Panel with one line per family, one marker per variant: means over steps.

  Args:
    points: with columns variant and seed.
    x_column: of the x axis.
    y_column: of the y axis.
    title: of the panel.
    families: variants by name of the family.
  """
  series = []
  for name, variants in families.items():
    pairs = []
    for variant in variants:
      x = points.by_seed(x_column, variant=variant)
      y = points.by_seed(y_column, variant=variant)
      if x.size and y.size:
        pairs.append((x.mean(), y.mean(), y.min(), y.max()))
    if pairs:
      x, y, low, high = np.array(sorted(pairs)).T
      series.append(
        Series(label=name, x=x, y=y, low=low, high=high, kind='marks')
      )
  return Panel(
    title=title,
    x_label=_NAMES.get(x_column, x_column),
    y_label=_NAMES.get(y_column, y_column),
    series=series,
  )


def series_by_name(panels: Sequence[Panel]) -> Mapping[str, Series]:
  """Series by their ids in the SVG."""
  return {
    f'series-{i}-{j}': one
    for i, panel in enumerate(panels)
    for j, one in enumerate(panel.series)
  }
