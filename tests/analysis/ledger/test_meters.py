import dataclasses

import numpy as np
import pytest

from dppo_jax.analysis.ledger import meters
from tests.support import ledger_records as records

_TIGHT = dict(
  divergence='topk_tv', delta_low=0.5, delta_high=0.4, ratio_cap=1.01
)


@pytest.fixture(scope='module')
def record():
  return records.trained(**_TIGHT)


def test_meters_are_those_of_training(record):
  _, decisions = records.decide_in_training(records.loss_config(**_TIGHT))
  found = meters.measure(record, records.rule(**_TIGHT))
  assert (
    set(found)
    == set(decisions.diagnostics)
    == {
      'drift/coefficient_sum',
      'drift/coefficient_abs',
      'drift/topk_mass',
      'direction/disagree',
      'certificate/decided',
    }
  )
  mask = np.zeros(decisions.keep.shape, bool)
  mask[record.row, record.position] = True
  for name, value in decisions.diagnostics.items():
    want = np.asarray(value)[mask].mean()
    assert found[name] == pytest.approx(want, abs=1e-6), name
  assert 1e-4 < found['drift/coefficient_abs'] < 1
  assert 0 < found['certificate/decided'] < 1


def test_a_predictive_rule_is_measured_as_it_was():
  own = dict(divergence='topk_kl', direction='predictive', delta_low=0.1)
  record = records.trained(**own)
  _, decisions = records.decide_in_training(records.loss_config(**own))
  found = meters.measure(record, records.rule(**own))
  mask = np.zeros(decisions.keep.shape, bool)
  mask[record.row, record.position] = True
  for name, value in decisions.diagnostics.items():
    assert found[name] == pytest.approx(value[mask].mean(), abs=1e-6), name


def test_more_recorded_ids_decide_more(record):
  shares = meters.decided_by_k(record, records.rule(**_TIGHT))
  assert list(shares) == [1, 2, 5]
  assert 0 <= shares[1] <= shares[2] <= shares[5] < 1
  assert shares[1] < shares[5]
  assert not meters.decided_by_k(record, records.rule(rule='none'))


def test_lines_are_of_every_rule_with_a_bound(record):
  loose = records.rule('loose', delta_low=0.9, delta_high=0.9)
  own, clip = records.rule('own', **_TIGHT), records.rule(rule='ratio_clip')
  text = meters.render(record, [own, loose, clip])
  assert '  drift/topk_mass' in text
  assert 'decide, own: K=1 ' in text
  assert 'decide, loose: K=1 ' in text
  assert text.count('decide') == 3  # And the metric's own line.


def test_nothing_is_measured_without_recorded_ids():
  record = records.hand_made()
  rule = records.hand_made_rule()
  assert meters.measure(record, rule) == {}
  assert meters.decided_by_k(record, rule) == {}
  assert meters.render(record, [rule]) == ''


def test_a_recomputed_anchor_is_measured_from(record):
  rule = records.rule(anchor='recomputed', **_TIGHT)
  assert meters.measure(record, rule) == {}  # None was recorded.
  both = dataclasses.replace(
    record,
    recomputed_log_probs=record.log_probs,
    recomputed_top_log_probs=record.top_log_probs,
  )
  found = meters.measure(both, rule)
  assert set(found) == {'direction/disagree', 'certificate/decided'}
  assert found['direction/disagree'] == 0  # It has not moved.
