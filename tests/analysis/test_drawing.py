import numpy as np
from PIL import Image
import pytest

from dppo_jax.analysis import drawing, panels
from dppo_jax.analysis.panels import Bound, Panel, Series
from dppo_jax.runtime.reporting import palette
from tests.support import pictures


def _series(label, kind='line', seed=0, size=7):
  rng = np.random.default_rng(seed)
  y = rng.random(size) + 0.1
  return Series(
    label=label,
    x=np.arange(1.0, size + 1),
    y=y,
    low=y - 0.05 if kind != 'dots' else None,
    high=y + 0.05 if kind != 'dots' else None,
    kind=kind,
  )


def _panel(*series, **more):
  return Panel(title='T', x_label='x', y_label='y', series=series, **more)


@pytest.fixture(scope='module')
def shown(tmp_path_factory):
  bars = [
    Series(label=n, x=np.array([float(i)]), y=np.array([y]), kind='bars')
    for i, (n, y) in enumerate((('PG-IS', 0.2), ('other', 0.7)))
  ]
  drawn = [
    _panel(_series('PG-IS'), _series('other', seed=1)),
    _panel(_series('PG-IS', 'marks'), y_log=True),
    _panel(_series('dots', 'dots'), x_log=True, y_log=True),
    _panel(*bars, ticks=('PG-IS', 'other')),
    _panel(),
  ]
  path = tmp_path_factory.mktemp('drawn') / 'a'
  drawing.draw(path, 'A title', drawn)
  return path, drawn


def test_the_svg_shows_the_numbers(shown):
  path, drawn = shown
  pictures.assert_shows(path.with_suffix('.svg'), drawn)


def test_a_number_that_differs_is_seen(shown):
  path, drawn = shown
  first = drawn[0].series[0]
  moved = first.y.copy()
  moved[3] += 0.02
  changed = [_panel(Series(label='a', x=first.x, y=moved)), *drawn[1:]]
  with pytest.raises(AssertionError):
    pictures.assert_shows(path.with_suffix('.svg'), changed)


def test_both_files_are_there_and_nothing_else(shown):
  path, _ = shown
  assert sorted(p.name for p in path.parent.iterdir()) == ['a.png', 'a.svg']
  with Image.open(path.with_suffix('.png')) as picture:
    assert picture.size[0] > 600


def test_drawing_again_makes_the_same_file(shown, tmp_path):
  path, drawn = shown
  drawing.draw(tmp_path / 'a', 'A title', drawn)
  again = (tmp_path / 'a.svg').read_text()
  assert again == path.with_suffix('.svg').read_text()


def test_a_method_has_its_color(shown):
  path, _ = shown
  svg = path.with_suffix('.svg').read_text()
  assert svg.count(palette.RULES['PG-IS'].color) >= 3


def test_a_place_without_a_panel_has_no_axes(shown):
  path, drawn = shown
  assert len(drawn) == 5  # Three in the first row, two in the second.
  svg = path.with_suffix('.svg').read_text()
  assert svg.count('id="axes_') == 5
  assert svg.count('id="matplotlib.axis_') == 2 * 5


def test_names_of_series_are_those_of_the_svg(shown):
  path, drawn = shown
  places = pictures.drawn(path.with_suffix('.svg'))
  assert set(places) == set(panels.series_by_name(drawn))


def test_every_row_fills_the_width():
  figure = drawing.render('T', [_panel(_series('a'))] * 5)
  figure.canvas.draw()
  right = [axis.get_position().x1 for axis in figure.axes]
  assert abs(right[2] - right[4]) < 0.01


def test_panels_of_a_row_share_the_y_axis():
  low = Series(label='a', x=np.arange(2.0), y=np.array([0.0, 1.0]))
  high = Series(label='b', x=np.arange(2.0), y=np.array([5.0, 9.0]))
  figure = drawing.render('T', [_panel(low, row='R'), _panel(high, row='R')])
  first, second = (axis.get_ylim() for axis in figure.axes)
  assert first == second
  assert first[0] <= 0.0
  assert first[1] >= 9.0


def test_one_point_is_seen():
  (axis,) = drawing.render('T', [_panel(_series('a', size=1))]).axes
  (line, *_) = axis.lines
  assert line.get_marker() == 'o'
  assert len(axis.get_xticks()) >= 1


def test_tokens_without_order_are_not_joined():
  points = _series('a', 'points')
  (axis,) = drawing.render('T', [_panel(points)]).axes
  assert axis.lines[0].get_linestyle() == 'None'


def test_thresholds_are_drawn():
  bound = Bound('clip at 1.28', 1.28, palette.RULES['GRPO'].color)
  (axis,) = drawing.render('T', [_panel(_series('a'), bounds=[bound])]).axes
  assert any(set(line.get_ydata()) == {1.28} for line in axis.lines)
  assert [text.get_text() for text in axis.texts] == ['clip at 1.28']


def test_bars_on_a_logarithmic_axis_are_refused():
  bar = Series(label='a', x=np.zeros(1), y=np.ones(1), kind='bars')
  with pytest.raises(ValueError, match='logarithmic'):
    drawing.render('T', [_panel(bar, ticks=('a',), y_log=True)])


def test_an_empty_panel_says_so():
  (axis,) = drawing.render('T', [_panel()]).axes
  assert [text.get_text() for text in axis.texts] == ['no finite value']


def test_no_text_is_clipped(shown):
  _, drawn = shown
  long = [f'DPPO-Binary-TV, a long name {i}' for i in range(9)]
  bars = [
    Series(label=n, x=np.array([float(i)]), y=np.ones(1), kind='bars')
    for i, n in enumerate(long)
  ]
  title = 'One line\nAnother line\nBands: minimum to maximum'
  figure = drawing.render(title, [*drawn, _panel(*bars, ticks=long)])
  assert pictures.overflow(figure) < 1


def test_a_legend_of_long_names_is_as_wide_as_the_picture():
  names = [f'divergence=binary_kl, delta={i}' for i in range(6)]
  lines = [_series(name) for name in names]
  figure = drawing.render('T', [_panel(*lines), _panel(*lines[:1])])
  assert pictures.overflow(figure) < 1
