import time
from types import SimpleNamespace

import pytest

from dppo_jax.rewards import verdicts
from dppo_jax.runtime.config.experiment import ProfileConfig
from dppo_jax.runtime.reporting import recorder as recorder_lib
from dppo_jax.runtime.reporting.recorder import (
  FailedVerifierError,
  NonFiniteError,
  Recorder,
  Tracer,
)
from dppo_jax.runtime.storage import metrics_log
from tests.support import runs


def _metrics(**more):
  return {
    'rewards/mean': 0.5,
    'trust_region/fraction_masked': 0.01,
    'trust_region/mean_dropped_weight': 0.01,
    'trust_region/divergence_mean': 0.02,
    'mismatch/mean_abs': 0.03,
    'rollout/length_mean': 4.0,
    'rollout/entropy_mean': 1.5,
    'time/step_s': 0.25,
    'optimizer/nonfinite_in_a_row': 0.0,
    **more,
  }


def _recorder(folder, start_step=0, resumed=False, **overrides):
  experiment = runs.experiment(runs.config(**overrides))
  return Recorder(experiment, folder, start_step, resumed=resumed)


def _steps(folder, name='metrics.jsonl'):
  return [row['step'] for row in metrics_log.read_rows(folder / name)]


def test_metrics_wait_for_the_flush(tmp_path):
  with _recorder(tmp_path) as recorder:
    recorder.hold(1, _metrics(), [])
    assert _steps(tmp_path) == []
    recorder.flush()
    recorder.flush()
    assert _steps(tmp_path) == [1]
    recorder.hold(2, _metrics(), [])
    recorder.evaluation(2, {'evaluation/sampled_accuracy': 0.5})
  rows = metrics_log.read_rows(tmp_path / 'metrics.jsonl')
  assert [len(row) > 2 for row in rows] == [True, True, False]


def test_samples_are_of_several_prompts():
  rows = [metrics_log.Sample(f'p{i // 4}', f'{i}', 0.0, '') for i in range(16)]
  assert [s.prompt for s in recorder_lib.spread(rows, 4)] == [
    *('p0', 'p1', 'p2', 'p3'),
  ]
  assert [s.completion for s in recorder_lib.spread(rows, 3)] == [
    '0',
    '5',
    '10',
  ]
  assert recorder_lib.spread(rows, 99) == rows
  assert recorder_lib.spread(rows, 0) == recorder_lib.spread([], 4) == []


def test_samples_are_written_when_due(tmp_path):
  samples = [metrics_log.Sample('p', 'c', 1.0, 'right')] * 5
  overrides = dict(writers__samples_every_n_steps=2, writers__num_samples=3)
  with _recorder(tmp_path, **overrides) as recorder:
    for step in (1, 2, 3):
      recorder.hold(step, _metrics(), samples)
  assert _steps(tmp_path, 'samples.jsonl') == [2, 2, 2]


@pytest.mark.parametrize(
  ('resumed', 'start_step', 'kept'), [(True, 2, [1, 2]), (False, 0, [])]
)
def test_a_resumed_run_keeps_its_steps(tmp_path, resumed, start_step, kept):
  with _recorder(tmp_path) as recorder:
    for step in (1, 2, 3):
      recorder.hold(step, _metrics(), [])
      recorder.flush()
  with _recorder(tmp_path, start_step, resumed):
    assert _steps(tmp_path) == kept


def test_the_console_gets_a_line_when_due(tmp_path, capsys):
  with _recorder(tmp_path, writers__console_every_n_steps=2) as recorder:
    for step in (1, 2):
      recorder.hold(step, _metrics(), [])
      recorder.flush()
  said = capsys.readouterr().err
  assert 'step 1: reward' not in said
  assert (
    'step 2: reward 0.500 · masked 1.00% · divergence 0.0200 · |pi-mu| 0.0300'
    ' · length 4.0 · entropy 1.500 · 0.25 s\n'
  ) in said


def test_skipped_updates_stop_the_run_at_the_limit(tmp_path):
  with _recorder(tmp_path, optimizer__max_nonfinite=3) as recorder:
    recorder.hold(1, _metrics(**{'optimizer/nonfinite_in_a_row': 2.0}), [])
    recorder.flush()
    recorder.hold(2, _metrics(**{'optimizer/nonfinite_in_a_row': 3.0}), [])
    with pytest.raises(NonFiniteError, match='step 2: the last 3 gradients'):
      recorder.flush()
  assert _steps(tmp_path) == [1, 2]  # What happened is on disk.


_FAILED = [metrics_log.Sample('p', 'c', 0.0, 'error: TypeError: 2 arguments')]


def test_failing_verifiers_are_reported_and_stop_the_run(tmp_path, capsys):
  failed = {'rewards/errors': 0.75, 'rewards/timeouts': 0.25}
  partly = {'rewards/errors': 0.75, 'rewards/timeouts': 0.0}
  with _recorder(tmp_path, rewards__max_failed=3) as recorder:
    # One batch that went partly well begins the count anew.
    for step, metrics in enumerate([failed, partly, failed, failed], 1):
      recorder.hold(step, _metrics(**metrics), _FAILED)
      recorder.flush()
    said = capsys.readouterr().err
    assert said.count('WARNING') == 2
    assert 'WARNING: step 1: rewards.verifier: it failed on 100% of' in said
    assert 'most often with: error: TypeError: 2 arguments. A failed' in said
    recorder.hold(5, _metrics(**failed), _FAILED)
    with pytest.raises(FailedVerifierError, match='3 steps in a row'):
      recorder.flush()
  assert _steps(tmp_path) == [1, 2, 3, 4, 5]


def test_failures_are_in_the_metrics_of_their_step():
  metrics = _metrics(**{'rewards/errors': 0.125, 'rewards/timeouts': 0.0})
  assert 'verifier failed 12.50%' in recorder_lib.console_line(3, metrics)
  assert 'failed' not in recorder_lib.console_line(3, _metrics())


def test_an_evaluation_without_a_verdict_is_reported(tmp_path, capsys):
  with _recorder(tmp_path) as recorder:
    recorder.warn_of_failures([verdicts.RIGHT, verdicts.TIMEOUT], 'held-out')
    assert 'WARNING' not in capsys.readouterr().err
    recorder.warn_of_failures([verdicts.CRASHED, verdicts.MEMORY], 'held-out')
  assert 'WARNING: held-out: rewards.verifier: it' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('metrics', 'expected'),
  [({}, False), ({'evaluation/greedy_accuracy': 0.5}, True)],
)
def test_whether_a_step_was_evaluated(tmp_path, metrics, expected):
  with _recorder(tmp_path) as recorder:
    recorder.hold(1, _metrics(), [])
    recorder.evaluation(1, {'evaluation/sampled_accuracy': 0.5})
    recorder.hold(2, _metrics(**metrics), [])
    recorder.flush()
  with _recorder(tmp_path, 2, resumed=True) as recorder:
    assert recorder.evaluated == expected
  with _recorder(tmp_path) as recorder:  # Begun anew.
    assert not recorder.evaluated


def test_zero_is_never_due():
  due = recorder_lib.due
  assert [step for step in range(1, 7) if due(step, 3)] == [3, 6]
  assert not any(due(step, 0) for step in range(7))


def test_the_stopwatch_adds_up():
  clock = recorder_lib.Stopwatch()
  time.sleep(0.02)
  clock.lap('sampling')
  clock.lap('training')
  got = clock.metrics(sampled=100, trained=10)
  assert got['time/sampling_s'] >= 0.02
  parts = got['time/sampling_s'] + got['time/training_s']
  assert got['time/step_s'] == pytest.approx(parts)
  assert got['throughput/sampled_tokens_per_s'] == pytest.approx(
    100 / got['time/sampling_s']
  )
  got = clock.metrics(sampled=100, trained=10, ahead=True)
  assert got['throughput/sampled_tokens_per_s'] == pytest.approx(
    100 / got['time/step_s']
  )


@pytest.mark.parametrize(
  ('start_step', 'num_steps', 'taken', 'traced'),
  [
    (2, 2, range(1, 7), [2, 3]),
    (0, 2, range(1, 7), [1]),  # There is no step 0.
    (2, 3, range(4, 7), [4]),  # Resumed within.
    (5, 9, range(1, 7), [5, 6]),  # Ends within.
    (3, 0, range(1, 7), []),
  ],
)
def test_the_trace_holds_its_steps(
  monkeypatch, tmp_path, start_step, num_steps, taken, traced
):
  calls = []
  profiler = SimpleNamespace(
    start_trace=lambda folder: calls.append('start'),
    stop_trace=lambda: calls.append('stop'),
  )
  monkeypatch.setattr(recorder_lib.jax, 'profiler', profiler)
  notes = []
  config = ProfileConfig(start_step=start_step, num_steps=num_steps)
  with Tracer(tmp_path, config, notes.append) as tracer:
    for step in taken:
      tracer.before(step)
      calls.append(step)
      tracer.after(step)
  expected = ['start', *traced, 'stop'] if traced else []
  if traced:
    first, last = calls.index('start'), calls.index('stop')
    assert calls[first : last + 1] == expected
    assert calls.count('start') == calls.count('stop') == len(notes) == 1
  else:
    assert calls == list(taken)


def test_steps_without_learning_signal_are_reported_once(tmp_path, capsys):
  """Three in a row; one group that differs starts the count again."""
  with _recorder(tmp_path) as recorder:
    for step, share in enumerate((1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0), 1):
      found = {'rewards/zero_variance_groups': share}
      recorder.hold(step, _metrics(**found), [])
      recorder.flush()
  shown = capsys.readouterr()
  assert (shown.out + shown.err).count('WARNING: in steps 4 to 6 ') == 1


def test_the_longest_run_of_idle_steps():
  shares = (1.0, 0.0, 1.0, 1.0, 0.9)
  rows = [
    {'step': step, 'rewards/zero_variance_groups': share}
    for step, share in enumerate(shares, 1)
  ]
  assert recorder_lib.longest_idle(rows) == (4, 2)
  assert recorder_lib.longest_idle([{'step': 1}]) == (0, 0)


def test_a_soft_rule_shows_the_removed_weight():
  soft = _metrics(**{'trust_region/mean_dropped_weight': 0.4})
  assert recorder_lib.bar_facts(soft)['weight lost'] == '40.00%'
  assert 'masked 1.00% · weight lost 40.00%' in recorder_lib.console_line(
    3, soft
  )
  assert 'weight lost' not in recorder_lib.console_line(3, _metrics())
