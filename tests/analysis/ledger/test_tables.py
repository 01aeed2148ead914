import dataclasses

import numpy as np
import pytest

from dppo_jax.analysis.ledger import replay, tables
from tests.support import ledger_records as records


@pytest.fixture
def record():
  return records.hand_made()


@pytest.fixture
def own(record):
  return replay.own(record, records.hand_made_rule())


def _masked(shares):
  """{label: (tokens, masked, with A < 0, with A > 0)} of what has tokens."""
  return {
    s.label: (s.num_tokens, s.masked, s.masked_negative, s.masked_positive)
    for s in shares
    if s.num_tokens
  }


def test_shares_by_sign(record, own):
  share = tables.overall(record, own)
  assert share == tables.Share('all', 6, 4, 2, 2, 1, 1, 2.0)
  assert share.fraction() == pytest.approx(1 / 3)


def test_shares_by_range_of_mu(record, own):
  assert _masked(tables.by_mu(record, own)) == {
    '[0.001, 0.01)': (1, 1, 0, 1),
    '[0.01, 0.1)': (1, 0, 0, 0),
    '[0.1, 0.5)': (1, 0, 0, 0),
    '[0.5, 0.9)': (1, 0, 0, 0),
    '[0.9, 0.99)': (2, 1, 1, 0),
  }


def test_ranges_hold_every_probability_once(record, own):
  logs = np.log(np.array([1e-30, 0.001, 0.1, 0.5, 0.99, 1.0])).astype('f4')
  # The borders themselves, just above: f32 rounds some of them down.
  logs = np.minimum(np.nextafter(logs, np.float32(1)), 0).astype('f4')
  moved = dataclasses.replace(record, rollout_log_probs=logs)
  counts = [s.num_tokens for s in tables.by_mu(moved, own)]
  assert counts == [1, 1, 0, 1, 1, 0, 2]
  assert len(counts) == len(tables.MU_EDGES) - 1


def test_shares_by_position_are_of_the_own_length(record, own):
  # Tokens 1 to 4 of 4 lie at 0, .25, .5, .75 and 1 to 2 of 2 at 0 and .5.
  assert _masked(tables.by_position(record, own)) == {
    '0–10 %': (2, 1, 1, 0),
    '20–30 %': (1, 0, 0, 0),
    '50–60 %': (2, 1, 0, 1),
    '70–80 %': (1, 0, 0, 0),
  }


def test_tokens_most_often_masked_come_first(record, own):
  shares = tables.by_token(record, own, 5)
  assert _masked(shares) == {'c': (3, 2, 1, 1)}
  blind = replay.Decided(own.rule, own.divergence, np.zeros(6, np.float32))
  shares = tables.by_token(record, blind, 3)
  assert [(s.label, s.masked) for s in shares] == [
    ('c', 3),
    ('<eos>', 1),
    ('d', 1),
  ]


def test_soft_rules_report_the_removed_weight(record, own):
  keep = np.array([0.5, 1, 1, 1, 1, 0.75], np.float32)
  soft = replay.Decided(own.rule, own.divergence, keep)
  share = tables.overall(record, soft)
  assert (share.masked, share.dropped) == (0, 0.75)
  text = tables.render(record, soft, 5)
  assert 'soft rule: 12.50% of the weight' in text
  assert 'soft rule' not in tables.render(record, own, 5)


def test_tables_are_printed(record, own):
  lines = tables.render(record, own, 5).splitlines()
  assert lines[0].startswith('recorded: divergence on binary_tv (probability)')
  total = next(line for line in lines if line.split()[:1] == ['all'])
  assert total.split() == [
    'all', '6', '2', '33.33%', '1', '25.00%', '1', '50.00%'
  ]  # fmt: skip
  empty = next(line for line in lines if line.split()[:2] == ['[0,', '0.001)'])
  assert empty.split()[2:] == ['0', '0', '–', '0', '–', '0', '–']
  assert lines[-1].split()[:3] == ['c', '3', '2']
  assert max(map(len, lines[1:])) <= 80


def test_a_rule_is_described_by_what_it_reads():
  describe = tables.describe
  clip = describe(records.rule(rule='ratio_clip', anchor='recomputed'))
  assert clip == (
    'ratio_clip from the recomputed policy · direction away · clip_low 0.2'
    ' · clip_high 0.2'
  )
  text = describe(
    records.rule(top_k_set='replace_kth', advantage_sign='negative')
  )
  assert 'topk_tv (probability) with replace_kth' in text
  assert 'advantage_sign negative' in text
  assert 'clip' not in text
  assert 'tau_low 1.05' in describe(records.rule(rule='sapo'))


def test_thresholds_are_printed_as_overrides(record):
  rule = records.hand_made_rule()
  clip = records.hand_made_rule(rule='ratio_clip', clip_low=0.4)._replace(
    name='clip'
  )
  matches = [replay.match(record, r, 1) for r in (rule, clip)]
  lines = tables.render_matches(matches, 6).splitlines()
  assert lines[0].endswith('1 of 6, 16.667%')
  delta = matches[0].thresholds['delta_low']
  assert lines[1].split() == ['recorded', f'delta={delta:g}']
  assert lines[2].split()[0] == 'clip'
  assert 'clip_low=' in lines[2]
  six = replay.match(record, rule, 6)
  assert '(the nearest: masks 5)' in tables.render_matches([six], 6)


def test_hostile_text_stays_on_its_line():
  shown = tables.printable('a\n\x1b[31m\u202eb')
  assert shown == r'a\n\x1b[31m\u202eb'
  assert len(tables.printable('x' * 99)) == 24
  assert tables.printable('  ') == "'  '"
