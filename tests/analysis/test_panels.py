import numpy as np

from dppo_jax.analysis import panels
from tests.support.tables import table


def test_a_curve_is_the_mean_in_a_band():
  panel = panels.over_steps(
    table({'a': [0.2, 0.6], 'b': [0.5]}), 'reward', 'R', 'mean'
  )
  first, second = panel.series
  assert (first.label, second.label) == ('a', 'b')
  np.testing.assert_allclose(first.x, [1, 2])
  np.testing.assert_allclose(first.y, [0.39, 0.41])
  np.testing.assert_allclose(first.low, [0.19, 0.21])
  np.testing.assert_allclose(first.high, [0.59, 0.61])


def test_steps_without_a_number_are_left_out():
  points = table({'a': [0.2]})
  points.rows[0]['reward'] = ''
  (curve,) = panels.over_steps(points, 'reward', 'R', '').series
  np.testing.assert_allclose(curve.x, [2])
  points.rows[1]['reward'] = ''
  assert not panels.over_steps(points, 'reward', 'R', '').series


def test_bars_are_means_over_seeds():
  panel = panels.bars(table({'a': [0.2, 0.6], 'b': [0.5]}), 'reward', 'R', '')
  assert panel.ticks == ['a', 'b']
  assert [bar.y[0] for bar in panel.series] == [0.4, 0.5]
  np.testing.assert_allclose(panel.series[0].low, [0.2])
  np.testing.assert_allclose(panel.series[0].high, [0.6])


def test_columns_have_a_curve_each():
  points = table({'a': [0.2]}, other={'a': [0.7]})
  panel = panels.columns_over_steps(points, ('reward', 'other'), 'R', '')
  assert [series.label for series in panel.series] == ['reward', 'other']
  np.testing.assert_allclose(panel.series[1].y, [0.7, 0.7])


def test_a_family_is_a_line_by_its_horizontal_axis():
  points = table({'a': [0.2], 'b': [0.6]}, masked={'a': [0.5], 'b': [0.1]})
  (line,) = panels.against(
    points, 'masked', 'reward', 'R', {'both': ('a', 'b', 'nobody')}
  ).series
  np.testing.assert_allclose(line.x, [0.1, 0.5])
  np.testing.assert_allclose(line.y, [0.6, 0.2])


def test_labels_are_places():
  points = table({'a': [0.2, 0.4], 'b': [0.6]})
  for row in points.rows:
    row['label'] = 'x' if row['step'] == '1' else 'y'
  panel = panels.grouped(points, 'reward', 'R', '')
  assert panel.ticks == ['x', 'y']
  np.testing.assert_allclose(panel.series[0].x, [-0.125, 0.875])
  np.testing.assert_allclose(panel.series[0].y, [0.29, 0.31])


def test_dots_are_rows():
  points = table({'a': [0.2]}, mu={'a': [0.5]})
  (dots,) = panels.dots(points, 'mu', 'reward', 'R').series
  np.testing.assert_allclose(dots.x, [0.5, 0.5])
  np.testing.assert_allclose(dots.y, [0.19, 0.21])


def test_series_have_names():
  panel = panels.bars(table({'a': [0.2], 'b': [0.5]}), 'reward', 'R', '')
  named = panels.series_by_name([panel, panel])
  assert list(named) == ['series-0-0', 'series-0-1', 'series-1-0', 'series-1-1']
