"""Reads the numbers back that an SVG shows, and finds clipped ones."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np

_SVG = '{http://www.w3.org/2000/svg}'


def _numbers(path):
  """Corners of an SVG path: f64 [n, 2]."""
  return np.array(re.findall(r'-?\d+\.?\d*(?:e-?\d+)?', path), float).reshape(
    -1, 2
  )


def drawn(svg):
  """Places in points of every series by name: f64 [n, 2]; bars their corners.

  Dots and marks have a place a use; a line without marks a corner a point.
  """
  found = {}
  for group in ElementTree.parse(svg).iter(f'{_SVG}g'):
    name = group.get('id') or ''
    if not name.startswith('series-'):
      continue
    uses = [
      (float(use.get('x')), float(use.get('y')))
      for use in group.iter(f'{_SVG}use')
    ]
    path = group.find(f'{_SVG}path')
    found[name] = np.array(uses) if uses else _numbers(path.get('d'))
  return found


def assert_shows(svg, panels):
  """Every series of the panels stands in the SVG, to a tenth of a point.

  Places are an affine map of the numbers, one a panel and axis, of their
  logarithms where the axis is logarithmic.
  """
  places = drawn(svg)
  names = set()
  for i, panel in enumerate(panels):
    pairs = {'x': [], 'y': []}
    for j, series in enumerate(panel.series):
      name = f'series-{i}-{j}'
      names.add(name)
      x, y = np.asarray(series.x, float), np.asarray(series.y, float)
      if series.kind == 'bars':  # The middle of its top.
        corners = places[name]
        assert corners[:, 0].max() > corners[:, 0].min()
        spots = np.array(
          [[corners[:, 0].mean(), corners[:, 1].min()]]
          if y[0] >= 0
          else [[corners[:, 0].mean(), corners[:, 1].max()]]
        )
        spots[0, 0] = (corners[:, 0].min() + corners[:, 0].max()) / 2
      else:
        spots = places[name]
      shown = np.isfinite(y) & ((y > 0) | (not panel.y_log))
      assert len(spots) == shown.sum(), name
      for axis, values, column, log in (
        ('x', x, 0, panel.x_log),
        ('y', y, 1, panel.y_log),
      ):
        values = values[shown]
        scaled = np.log10(values) if log else values
        pairs[axis] += list(zip(scaled, spots[:, column], strict=True))
    for axis, listed in pairs.items():
      if not listed:
        continue
      values, spots = np.array(listed).T
      if np.ptp(values) == 0:
        assert np.ptp(spots) < 0.1
        continue
      fit = np.polyfit(values, spots, 1)
      assert np.abs(np.polyval(fit, values) - spots).max() < 0.1, (i, axis)
      assert (fit[0] > 0) == (axis == 'x')
  assert set(places) == names


def overflow(figure):
  """Pixels by which what a matplotlib figure shows reaches over its edge."""
  figure.canvas.draw()
  box = figure.get_tightbbox(figure.canvas.get_renderer())
  width, height = figure.get_size_inches()
  over = (-box.x0, -box.y0, box.x1 - width, box.y1 - height)
  return max(0.0, figure.dpi * max(over))
