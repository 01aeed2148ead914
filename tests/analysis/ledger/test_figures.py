import dataclasses

import numpy as np
from PIL import Image
import pytest

from dppo_jax.analysis.ledger import figures, replay
from dppo_jax.runtime.reporting import palette, plots
from tests.support import ledger_records as records
from tests.support import pictures


def _colors(path):
  """Share of the picture in each of the two colors of masked tokens."""
  with Image.open(path) as picture:
    pixels = np.asarray(picture.convert('RGB')).reshape(-1, 3).astype(int)
  wanted = {
    name: [int(color[place : place + 2], 16) for place in (1, 3, 5)]
    for name, color in (
      ('negative', palette.NEGATIVE),
      ('positive', palette.POSITIVE),
    )
  }
  return {
    name: float((np.abs(pixels - rgb).sum(1) < 30).mean())
    for name, rgb in wanted.items()
  }


def test_a_rule_is_drawn(tmp_path):
  record = records.trained(direction='any', delta_low=0.05, delta_high=0.05)
  path = tmp_path / 'rule.png'
  count = figures.draw(record, replay.own(record, records.rule()), path)
  assert count == len(record.row)
  with Image.open(path) as picture:
    assert picture.size == (1500, 860)
  assert [p.name for p in tmp_path.iterdir()] == ['rule.png']
  assert min(_colors(path).values()) > 1e-3


def test_a_side_that_is_not_masked_has_no_color(tmp_path):
  record = records.trained(
    delta_low=0.05, delta_high=0.05, advantage_sign='negative'
  )
  path = tmp_path / 'rule.png'
  figures.draw(record, replay.own(record, records.rule()), path)
  colors = _colors(path)
  assert colors['negative'] > 3 * colors['positive'] > 0  # The legend has it.


def test_many_tokens_are_drawn_in_part(tmp_path, monkeypatch):
  monkeypatch.setattr(figures, 'MAX_POINTS', 3)
  record = records.hand_made()
  own = replay.own(record, records.hand_made_rule())
  # Four are kept and one of either sign is masked.
  assert figures.draw(record, own, tmp_path / 'a.png') == 5


@pytest.mark.parametrize('keep', [0.0, 1.0])
def test_all_or_nothing_is_drawn_too(tmp_path, keep):
  record = records.hand_made(keep=np.full(6, keep, np.float32))
  own = replay.own(record, records.hand_made_rule())
  assert figures.draw(record, own, tmp_path / 'a.png') == 6


def test_the_thresholds_of_a_rule_are_drawn(tmp_path, monkeypatch):
  made = []
  make = plots.make_figure
  monkeypatch.setattr(
    plots,
    'make_figure',
    lambda *size, **more: made.append(make(*size, **more)) or made[-1],
  )
  record = records.trained(delta_low=0.05, delta_high=0.07)
  loss = dataclasses.replace(records.rule().loss, divergence='binary_tv')
  bounds = dataclasses.replace(loss.bounds, delta_low=0.05, delta_high=0.07)
  rule = replay.Rule('tv', dataclasses.replace(loss, bounds=bounds))
  figures.draw(record, replay.own(record, rule), tmp_path / 'a.png')
  scatters = [made[0].axes[place] for place in (0, 1, 2, 3)]
  for axis in scatters:
    drawn = {line.get_label(): line for line in axis.lines}
    low, high = axis.get_ylim()
    bounds = [label for label in drawn if label.startswith(('A > 0', 'A < 0'))]
    assert len(bounds) == 2
    for label in bounds:
      y = np.asarray(drawn[label].get_ydata(), float)
      assert ((y > low) & (y < high)).any(), (axis.get_title(loc='left'), label)
  assert pictures.overflow(made[0]) < 1


def test_no_bars_are_drawn_where_nothing_is_masked(tmp_path, monkeypatch):
  said = []
  monkeypatch.setattr(plots, 'say_nothing', lambda _, text: said.append(text))
  record = records.trained(delta_low=9.0, delta_high=9.0)
  own = replay.own(record, records.rule())
  figures.draw(
    record, own._replace(keep=np.ones_like(own.keep)), tmp_path / 'a.png'
  )
  assert said == ['no token with A < 0 or A > 0 is masked'] * 2
