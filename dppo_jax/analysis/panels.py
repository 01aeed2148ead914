"""Panels of a picture: series of numbers with how they are to be drawn."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Literal, NamedTuple

import numpy as np

from dppo_jax.analysis.table import Points

# Columns as they stand at an axis.
_NAMES = {
  'step': 'train step',
  'position': 'position in the completion, tokens',
  'mu': 'μ, probability of the sampler',
  'ratio': 'ratio π / μ',
  'tv': 'TV |π − μ|',
  'masked': 'share of tokens masked',
  'dropped': 'weight taken away, mean of 1 − M',
  'reward': 'mean reward',
}
# What every picture of several seeds says of them.
BANDS = 'Bands and error bars: from the least to the most of the seeds'
Kind = Literal['line', 'marks', 'bars', 'dots']


class Style(NamedTuple):
  """Color, and dashes or a marker."""

  color: str
  line: str = '-'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
  """Numbers under one label.

  Attributes:
    label: in the legend; series of one label look alike in all panels.
    x: f64 [n].
    y: f64 [n].
    low: f64 [n], lower end of a band or an error bar; None without.
    high: f64 [n], its upper end.
    kind: how they are drawn: 'line', 'marks' (a line with marks), 'dots', or
      'bars'.
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
    title: what it shows.
    x_label: of the horizontal axis, with its unit.
    y_label: of the vertical one.
    series: what is drawn.
    x_log: whether the horizontal axis is logarithmic.
    y_log: whether the vertical one is.
    ticks: names of x = 0, 1, …; () numbers them.
  """

  title: str
  x_label: str
  y_label: str
  series: Sequence[Series]
  x_log: bool = False
  y_log: bool = False
  ticks: Sequence[str] = ()


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
  """A curve a variant: the mean of its seeds, in a band from least to most.

  Args:
    points: with columns variant, seed and `over`.
    column: what is drawn.
    title: of the panel.
    y_label: of its vertical axis.
    variants: which of them; None takes all.
    y_log: whether that is logarithmic.
    over: column of the horizontal axis, 'step' or 'position'.
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
  """A curve a column, of all rows: means, in a band from least to most.

  Args:
    points: with columns seed and step.
    columns: what is drawn.
    title: of the panel.
    y_label: of its vertical axis.
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
) -> Panel:
  """A bar a variant: the mean of its seeds, with an error bar least to most.

  Args:
    points: with columns `by` and seed.
    column: averaged over the rows of a seed.
    title: of the panel.
    y_label: of its vertical axis.
    by: column whose values get a bar each.
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
        kind='bars',
      )
    )
  return Panel(
    title=title, x_label='', y_label=y_label, series=series, ticks=names
  )


def grouped(points: Points, column: str, title: str, y_label: str) -> Panel:
  """A mark for each variant at each label: means over seeds.

  Args:
    points: with columns variant, seed and label.
    column: of numbers.
    title: of the panel.
    y_label: of its vertical axis.
  """
  labels = points.values('label')
  series = []
  for variant in points.values('variant'):
    found = [
      points.by_seed(column, variant=variant, label=label) for label in labels
    ]
    there = [place for place, seeds in enumerate(found) if seeds.size]
    series.append(
      Series(
        label=variant,
        x=np.array(there, np.float64),
        y=np.array([found[place].mean() for place in there]),
        low=np.array([found[place].min() for place in there]),
        high=np.array([found[place].max() for place in there]),
        kind='marks',
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
) -> Panel:
  """A dot a row and a color a variant; x is logarithmic."""
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
  )


def against(
  points: Points,
  x_column: str,
  y_column: str,
  title: str,
  families: Mapping[str, Sequence[str]],
) -> Panel:
  """A line a family of variants, each a mark: means over steps and seeds.

  Args:
    points: with columns variant and seed.
    x_column: of the horizontal axis, and its name.
    y_column: of the vertical one.
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
  """Every series by the name that it has in the SVG: 'panel/number'."""
  return {
    f'series-{i}-{j}': one
    for i, panel in enumerate(panels)
    for j, one in enumerate(panel.series)
  }
