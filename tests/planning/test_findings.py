"""Each kind of sickness is found, and health is not."""

import numpy as np
import pytest

from dppo_jax.planning import findings as findings_lib
from dppo_jax.rewards import verdicts
from tests.support import runs


@pytest.fixture(scope='module')
def experiment():
  return runs.experiment()


def _levels(findings):
  return {finding.check: finding.level for finding in findings}


def test_a_finding_names_cause_and_fix():
  finding = findings_lib.Finding(findings_lib.ERROR, 'what', 'why', 'how')
  assert str(finding) == 'ERROR   what: why\n        Fix: how'
  assert (
    str(findings_lib.Finding(findings_lib.OK, 'what', 'fine'))
    == 'ok      what: fine'
  )


def test_a_healthy_law(experiment):
  found = findings_lib.check_distribution(experiment)
  assert _levels(found) == {'temperature': 'ok', 'top-p': 'ok'}


@pytest.mark.parametrize(
  ('changes', 'sick'),
  [
    (dict(loss__temperature=0.7), 'temperature'),
    (dict(sampling__temperature=0.7), 'temperature'),
    (dict(sampling__temperature_slip=0.1), 'temperature'),
    (dict(sampling__top_p=0.95), 'top-p'),
    (dict(sampling__greedy=True), 'top-p'),
  ],
)
def test_a_law_that_is_not_the_same_on_both_sides(experiment, changes, sick):
  levels = _levels(
    findings_lib.check_distribution(runs.changed(experiment, **changes))
  )
  assert levels.pop(sick) == 'error'
  assert set(levels.values()) == {'ok'}


def test_a_slip_on_purpose_is_said(experiment):
  slipped = runs.changed(
    experiment, sampling__temperature=1.1, sampling__temperature_slip=0.1
  )
  (found, _) = findings_lib.check_distribution(slipped)
  assert found.level == 'warning'
  assert 'sampled at 1.1, trained at 1, by' in found.cause
  logs = np.zeros(3, np.float32)
  off = findings_lib.check_agreement(slipped, logs, logs + 0.1)
  assert off.level == 'warning'


@pytest.mark.parametrize(
  ('changes', 'mass', 'level'),
  [
    ({}, 0.95, 'ok'),
    ({}, 0.89, 'warning'),
    ({}, None, 'error'),
    (dict(sampling__top_k=0), None, 'error'),
    (dict(sampling__top_k=0, loss__divergence='binary_tv'), None, 'ok'),
    (dict(loss__divergence='binary_tv'), 0.5, 'ok'),
    (dict(loss__divergence='binary_tv'), None, 'error'),
  ],
)
def test_recorded(experiment, changes, mass, level):
  assert findings_lib.check_recorded(
    runs.changed(experiment, **changes), mass
  ).level == (level)


@pytest.mark.parametrize(
  ('changes', 'off', 'level'),
  [
    ({}, 1e-5, 'ok'),
    ({}, 1e-2, 'error'),
    ({}, np.nan, 'error'),
    (dict(model__dtype='bfloat16'), 1e-2, 'ok'),
    (dict(model__dtype='bfloat16'), 0.5, 'warning'),
    (dict(sampling__precision='int4'), 1e-2, 'ok'),
    (dict(sampling__precision='int4'), np.nan, 'error'),
  ],
)
def test_agreement(experiment, changes, off, level):
  sampled = np.array([-1.0, -2.0, -0.5])
  trained = sampled + off * np.array([1, -1, 1])
  found = findings_lib.check_agreement(
    runs.changed(experiment, **changes), sampled, trained
  )
  assert found.level == level


def test_nothing_sampled_agrees_with_nothing(experiment):
  nothing = np.zeros(0)
  found = findings_lib.check_agreement(experiment, nothing, nothing)
  assert found.level == 'error'


@pytest.mark.parametrize(
  ('share', 'warm_start', 'level'),
  [
    (0.5, False, 'ok'),
    (0.75, False, 'warning'),
    (1.0, False, 'error'),
    (1.0, True, 'warning'),
  ],
)
def test_lengths(share, warm_start, level):
  truncated = np.arange(8) < 8 * share
  found = findings_lib.check_lengths(truncated, 64, warm_start=warm_start)
  assert found.level == level
  assert f'{share:.0%} of 8 completions reach 64 tokens' in found.cause


@pytest.mark.parametrize(
  ('rewards', 'warm_start', 'level', 'fix'),
  [
    ([[0, 1], [0, 0], [1, 1], [1, 0]], False, 'ok', ''),
    ([[0, 0]] * 9 + [[0, 1]], False, 'warning', 'too hard'),
    ([[0, 0]] * 3, False, 'error', 'too hard'),
    ([[0, 0]] * 3, True, 'warning', 'too hard'),
    ([[1, 1]] * 3, False, 'error', 'too easy'),
  ],
)
def test_rewards(rewards, warm_start, level, fix):
  rewards = np.array(rewards, np.float32)
  found = findings_lib.check_rewards(rewards, warm_start=warm_start)
  assert found.level == level
  assert fix in found.fix


@pytest.mark.parametrize(
  ('found', 'level', 'cause'),
  [
    ([verdicts.RIGHT], 'ok', 'all of 1 completions'),
    ([verdicts.RIGHT, verdicts.TIMEOUT], 'warning', 'on 50% of'),
    ([verdicts.CRASHED, verdicts.error_verdict('no idea')], 'error', '100%'),
  ],
)
def test_verifier(found, level, cause):
  finding = findings_lib.check_verifier(found)
  assert finding.level == level
  assert cause in finding.cause
  assert ('look at its signature' in finding.fix) == (level != 'ok')


@pytest.mark.parametrize(
  ('changes', 'level'),
  [
    ({}, 'ok'),
    (dict(loss__shared_rows=2), 'warning'),
    (dict(loss__shared_rows=2, data__max_prompt_length=1), 'ok'),
  ],
)
def test_microbatch(experiment, changes, level):
  found = findings_lib.check_microbatch(runs.changed(experiment, **changes))
  assert found.level == level
  if level == 'warning':
    assert 'each prompt is run 2 times' in found.cause


@pytest.mark.parametrize(
  ('estimate', 'capacity', 'level'),
  [
    (80e9, 141e9, 'ok'),
    (130e9, 141e9, 'warning'),
    (150e9, 141e9, 'error'),
    (150e9, None, 'ok'),
  ],
)
def test_memory(estimate, capacity, level):
  assert findings_lib.check_memory(estimate, capacity).level == level
