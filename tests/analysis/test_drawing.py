import numpy as np
from PIL import Image
import pytest

from dppo_jax.analysis import drawing, panels
from dppo_jax.analysis.panels import Panel, Series
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
  assert svg.count(drawing.STYLES['PG-IS'].color) >= 3


def test_a_place_without_a_panel_has_no_axes(shown):
  path, drawn = shown
  assert len(drawn) == 5  # Of six places, three to a row.
  svg = path.with_suffix('.svg').read_text()
  assert svg.count('id="axes_') == 5 + 1
  assert svg.count('id="matplotlib.axis_') == 2 * 5


def test_names_of_series_are_those_of_the_svg(shown):
  path, drawn = shown
  places = pictures.drawn(path.with_suffix('.svg'))
  assert set(places) == set(panels.series_by_name(drawn))
