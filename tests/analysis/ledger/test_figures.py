import numpy as np
from PIL import Image
import pytest

from dppo_jax.analysis.ledger import figures, replay
from tests.support import ledger_records as records


def _colors(path):
  """Share of the picture in each of the two colors of masked tokens."""
  with Image.open(path) as picture:
    pixels = np.asarray(picture.convert('RGB')).reshape(-1, 3).astype(int)
  wanted = {'negative': (217, 119, 6), 'positive': (43, 108, 176)}
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
