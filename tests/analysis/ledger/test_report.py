import dataclasses
import pathlib

import numpy as np
import pytest

from dppo_jax.analysis.ledger import report
from dppo_jax.ops.divergences import DIVERGENCES
from tests.support import ledger_records as records

_DIR = pathlib.Path('run')


def _examine(record, *others, match_share=False):
  return report.examine(
    record, records.hand_made_rule(), others, match_share=match_share
  )


def _clip(**options):
  return records.hand_made_rule(rule='ratio_clip', **options)._replace(
    name='clip'
  )


def test_the_recorded_rule_comes_first_and_others_are_replayed():
  found = _examine(records.hand_made(), _clip())
  assert [d.rule.name for d in found.decided] == ['recorded', 'clip']
  assert found.num_differ == 0
  names = [m.matched.name for m in found.matches]
  kinds = [name for name, r in DIVERGENCES.items() if r.records == 'nothing']
  assert names == [*(f'divergence on {kind}' for kind in kinds), 'clip']
  assert {m.wanted for m in found.matches} == {2}
  text = report.describe(found, _DIR, 5)
  assert text.startswith('run: steps 7; 2 completions, 6 tokens')
  assert 'decides every token as recorded' in text
  assert 'clip: ratio_clip' in text


def test_matching_replays_at_equal_strength():
  found = _examine(records.hand_made(), _clip(), match_share=True)
  assert [d.rule.name for d in found.decided] == ['recorded', 'clip, matched']
  assert [int(d.masked().sum()) for d in found.decided] == [2, 2]


def test_a_rule_without_thresholds_cannot_be_matched():
  rule = records.hand_made_rule(rule='none')._replace(name='free')
  with pytest.raises(ValueError, match=r"--match_share: 'free' has no thresh"):
    _examine(records.hand_made(), rule, match_share=True)
  kept = records.hand_made(keep=np.ones(6, np.float32))
  assert _examine(kept).matches == []
  assert 'masks no token' in report.describe(_examine(kept), _DIR, 5)
  with pytest.raises(ValueError, match=r'--match_share: .*--step'):
    _examine(kept, _clip(), match_share=True)


def test_a_record_that_differs_from_its_replay_is_reported():
  record = records.hand_made()
  keep = record.keep.copy()
  keep[1] = 0.0
  found = _examine(dataclasses.replace(record, keep=keep))
  assert found.num_differ == 1
  assert '1 of 6 tokens differently' in report.describe(found, _DIR, 5)


def test_pictures_and_page_are_written(tmp_path):
  found = _examine(records.hand_made(), _clip()._replace(name='a/b,c=1 é'))
  page = tmp_path / 'page' / 'ledger.html'
  text = report.draw(found, _DIR, tmp_path / 'out', page)
  names = sorted(p.name for p in (tmp_path / 'out').iterdir())
  assert names == ['rule_00_recorded.png', 'rule_01_a_b_c_1_.png']
  assert all(name in text for name in (*names, str(page)))
  assert '2 of 2 completions' in text
  assert page.is_file()
