"""Crowded panels taken apart into panels of a row, which share their y axis."""

from collections.abc import Mapping
import dataclasses
import math

from dppo_jax.analysis.panels import Panel, Series
from dppo_jax.runtime.reporting import palette

# Curves in a panel: more cannot be told apart.
MAX_CURVES = 4


def apart(panel: Panel) -> list[Panel]:
  """Panels in one row with at most `MAX_CURVES` of a panel's curves each.

  Curves of one family of rules stay together.
  """
  curves = all(series.kind == 'line' for series in panel.series)
  if len(panel.series) <= MAX_CURVES or not curves:
    return [panel]
  families: dict[str, list[Series]] = {}
  for series in panel.series:
    families.setdefault(palette.family_of(series.label), []).append(series)
  parts: list[tuple[str, list[Series]]] = []
  for name, members in families.items():
    size = math.ceil(len(members) / math.ceil(len(members) / MAX_CURVES))
    for begin in range(0, len(members), size):
      some = members[begin : begin + size]
      if parts and len(parts[-1][1]) + len(some) <= MAX_CURVES:
        before, others = parts.pop()
        both = dict.fromkeys(part for part in (before, name) if part)
        parts.append((', '.join(both), others + some))
      else:
        parts.append((name, some))
  return [
    dataclasses.replace(
      panel,
      title=f'{panel.title}: {name}' if name else panel.title,
      series=some,
      row=panel.title,
    )
    for name, some in parts
  ]


def named(panel: Panel) -> Panel:
  """Panel whose variants have their names of `palette.NAMES`."""
  labels = {
    series.label: palette.shown(series.label) for series in panel.series
  }
  return dataclasses.replace(
    panel,
    series=[
      dataclasses.replace(series, label=labels[series.label])
      for series in panel.series
    ],
    ticks=[labels.get(tick, tick) for tick in panel.ticks],
  )


def relabel(panel: Panel, groups: Mapping[str, Mapping[str, str]]) -> Panel:
  """Panel with the labels that `split` shows; its ticks stay."""
  shown = {k: v for labels in groups.values() for k, v in labels.items()}
  return dataclasses.replace(
    panel,
    series=[
      dataclasses.replace(series, label=shown.get(series.label, series.label))
      for series in panel.series
    ],
  )


def split(panel: Panel, groups: Mapping[str, Mapping[str, str]]) -> list[Panel]:
  """Panels in one row, one per group.

  Args:
    panel: of curves.
    groups: by title, the labels in the panel -> those to show.
  """
  return [
    dataclasses.replace(
      panel,
      title=f'{panel.title}: {title}',
      series=[
        dataclasses.replace(series, label=labels[series.label])
        for series in panel.series
        if series.label in labels
      ],
      row=panel.title,
    )
    for title, labels in groups.items()
  ]
