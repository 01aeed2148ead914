"""Runs in this process: what stops them, and how they go on."""

import errno
import json
import math
import os
import shutil
import signal

import numpy as np
import pytest

from dppo_jax.rewards.verdicts import Verdict
from dppo_jax.runtime import cli, loop
from dppo_jax.runtime.evaluation import evaluate as evaluate_lib
from dppo_jax.runtime.programs import compiled
from dppo_jax.runtime.reporting import summary as summary_lib
from dppo_jax.runtime.reporting.recorder import Recorder
from dppo_jax.runtime.rollouts import collect
from dppo_jax.runtime.storage import checksums, metrics_log, workdir
from dppo_jax.runtime.storage.checkpoints import Checkpoints
from tests.support import runs

# Real processes and signals: a rare race is shown as a rerun.
pytestmark = pytest.mark.flaky(reruns=1)

_REWARD_MODEL = runs.ROOT / 'tests/testdata/hf_reward_models/llama3'


def _all_finite(folder):
  for row in runs.rows(folder):
    for name, value in row.items():
      assert math.isfinite(float(value)), name


@pytest.mark.slow
def test_a_mesh_of_eight_devices_runs(tmp_path):
  settings = runs.smallest(
    mesh__data=2,
    mesh__fsdp=2,
    mesh__tensor=2,
    trust_region__divergence='topk_kl',
    objective__loss_form='surrogate',
    objective__entropy_coefficient=0.01,
  )
  facts = runs.run(settings, tmp_path, num_devices=8)
  assert facts['divergence'] == 'topk_kl'
  assert facts['steps'] == 1
  assert facts['skipped_updates'] == 0
  _all_finite(tmp_path)


@pytest.fixture
def two_steps_short(tmp_path, finished):
  """A copy of the finished run that was killed after its fourth step."""
  folder = shutil.copytree(finished, tmp_path / 'run')
  shutil.rmtree(folder / workdir.CHECKPOINTS / '6')
  (folder / summary_lib.SUMMARY_FILE).unlink()
  return folder


def _stop_in_step(monkeypatch, step, number):
  """Sends this process a signal while it verifies that train step."""
  calls = iter(range(1, 1000))
  reward = collect.reward

  def verify_and_signal(*args):
    if next(calls) == step:
      os.kill(os.getpid(), number)
    return reward(*args)

  monkeypatch.setattr(collect, 'reward', verify_and_signal)


def _guarded(settings, folder):
  return cli.guard(lambda: runs.run(settings, folder) and 0, [''])


@pytest.mark.slow
@pytest.mark.parametrize(
  ('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_saves_and_the_run_goes_on(
  monkeypatch, capsys, two_steps_short, finished, number, code
):
  with monkeypatch.context() as patch:
    _stop_in_step(patch, 1, number)
    assert _guarded(runs.config(), two_steps_short) == code
  said = capsys.readouterr().err
  assert 'Resuming from step 4 of 6.' in said
  assert 'Stopped after step 5 of 6; the state is saved.' in said
  assert (two_steps_short / workdir.CHECKPOINTS / '5').is_dir()
  runs.run(runs.config(), two_steps_short)
  assert 'Resuming from step 5 of 6.' in capsys.readouterr().err
  runs.assert_same(two_steps_short, finished)


def _rewrite_config(folder, settings):
  resolved = runs.experiment(settings).resolved
  (folder / workdir.CONFIG).write_text(json.dumps(resolved))


def test_a_finished_run_without_its_checkpoints_is_not_wiped(
  capsys, two_steps_short
):
  shutil.rmtree(two_steps_short / workdir.CHECKPOINTS)
  before = runs.rows(two_steps_short)
  assert _guarded(runs.config(), two_steps_short) == 1
  assert 'records of 6 steps and no whole' in capsys.readouterr().err
  assert runs.rows(two_steps_short) == before


def test_a_step_is_recorded_after_the_first_checkpoint_is_whole(
  monkeypatch, tmp_path
):
  events = []

  def note(owner, name):
    whole = getattr(owner, name)

    def noted(*args, **kwargs):
      found = whole(*args, **kwargs)
      events.append(name)
      return found

    monkeypatch.setattr(owner, name, noted)

  note(Checkpoints, 'save')
  note(Checkpoints, 'wait')
  note(Recorder, 'hold')
  runs.run(runs.smallest(), tmp_path)
  first = events.index('save')
  assert events[first : first + 3] == ['save', 'wait', 'hold']


def test_a_verifier_that_always_fails_stops_the_run(capsys, two_steps_short):
  settings = runs.config(
    rewards__verifier='tests.support.bad_verifiers:always_fails',
    rewards__num_workers=1,
    rewards__max_failed=2,
  )
  _rewrite_config(two_steps_short, settings)
  assert _guarded(settings, two_steps_short) == 1
  said = capsys.readouterr().err
  reason = "most often with: error: KeyError: 'level'"
  assert said.count('WARNING: step 5: rewards.verifier: it failed on 100%') == 1
  assert said.count(reason) == 2
  assert 'error: step 6: rewards.verifier: it failed on 100%' in said
  assert '2 steps in a row (rewards.max_failed)' in said
  # Nothing of it was saved, and what was is whole.
  assert not (two_steps_short / workdir.CHECKPOINTS / '6').exists()


def test_a_signal_during_an_evaluation_saves_first(
  monkeypatch, capsys, two_steps_short, finished
):
  # The last of the run: it would take as long as evaluations take.
  answer, calls = evaluate_lib.answer, []

  def answer_and_signal(*args):
    calls.append(1)
    os.kill(os.getpid(), signal.SIGTERM)
    return answer(*args)

  with monkeypatch.context() as patch:
    patch.setattr(evaluate_lib, 'answer', answer_and_signal)
    assert _guarded(runs.config(), two_steps_short) == 143
  assert len(calls) == 1
  assert 'Stopped after step 6 of 6; the state is' in capsys.readouterr().err
  assert (two_steps_short / workdir.CHECKPOINTS / '6').is_dir()
  assert not (two_steps_short / summary_lib.SUMMARY_FILE).exists()
  facts = runs.run(runs.config(), two_steps_short)
  assert facts['steps'] == 6
  runs.assert_same(two_steps_short, finished)
  scores = json.loads((two_steps_short / 'checkpoints/scores.json').read_text())
  assert scores.keys() >= {'6'}


def test_a_signal_before_the_first_evaluation_keeps_the_start(
  monkeypatch, tmp_path
):
  settings = runs.smallest()
  warm_start = loop.warm_start

  def start_and_signal(*args):
    os.kill(os.getpid(), signal.SIGTERM)
    return warm_start(*args)

  monkeypatch.setattr(loop, 'warm_start', start_and_signal)
  assert _guarded(settings, tmp_path) == 143
  assert (tmp_path / workdir.CHECKPOINTS / '0').is_dir()
  # Nobody samples or starts anew: the next run goes on from there.
  assert metrics_log.read_rows(tmp_path / metrics_log.METRICS_FILE) == []


def test_the_reference_survives(monkeypatch, tmp_path):
  settings = runs.smallest(
    trust_region__divergence='binary_kl',
    trust_region__anchor='recomputed',
    objective__kl_coefficient=10.0,
    optimizer__learning_rate=0.05,
  )
  settings.num_steps = 3
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  runs.run(settings, whole)
  _all_finite(whole)
  with monkeypatch.context() as patch:
    _stop_in_step(patch, 2, signal.SIGTERM)
    assert _guarded(settings, broken) == 143
  # A penalty from where the run stopped would be none at the third step.
  runs.run(settings, broken)
  runs.assert_same(broken, whole, settings)


def test_a_damaged_checkpoint_is_passed_over(caplog, tmp_path, finished):
  folder = shutil.copytree(finished, tmp_path / 'run')
  arrays = folder / workdir.CHECKPOINTS / '6' / 'state'
  largest = max(
    (path for path in arrays.rglob('*') if path.is_file()),
    key=lambda path: path.stat().st_size,
  )
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 1
  largest.write_bytes(content)
  runs.run(runs.config(), folder)
  assert 'step 6 is damaged' in caplog.text
  assert 'trying step 4 instead' in caplog.text
  runs.assert_same(folder, finished)


def test_a_full_disk_ends_the_run_and_no_more(
  monkeypatch, capsys, two_steps_short, finished
):
  def fill_up(folder, items):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with monkeypatch.context() as patch:
    patch.setattr(checksums, 'write', fill_up)
    assert _guarded(runs.config(), two_steps_short) == 1
  said = capsys.readouterr().err
  assert 'No space left on device' in said
  assert 'Complete checkpoints: [4].' in said
  assert 'Make room there (' in said
  assert 'or lower checkpoints.keep; then the same command' in said
  runs.run(runs.config(checkpoints__keep=1), two_steps_short)
  assert 'Resuming from step 4 of 6.' in capsys.readouterr().err
  runs.assert_same(two_steps_short, finished)


def test_gradients_that_are_not_finite_stop_the_run(
  monkeypatch, capsys, two_steps_short
):
  reward = collect.reward

  def no_number(*args):
    found = reward(*args)
    verdicts = [Verdict(math.nan, 'right') for _ in found.verdicts]
    return found._replace(verdicts=verdicts)

  monkeypatch.setattr(collect, 'reward', no_number)
  settings = runs.config(optimizer__max_nonfinite=3)
  _rewrite_config(two_steps_short, settings)
  assert _guarded(settings, two_steps_short) == 1
  said = capsys.readouterr().err
  assert 'step 6: the last 4 gradients were not finite' in said
  assert '(optimizer.max_nonfinite=3)' in said
  skipped = {
    row['step']: row['optimizer/nonfinite_total']
    for row in runs.rows(two_steps_short)
    if 'optimizer/nonfinite_total' in row
  }
  assert [skipped[step] for step in (4, 5, 6)] == [0, 2, 4]
  assert not (two_steps_short / workdir.CHECKPOINTS / '6').exists()


def test_a_verifier_that_fails_costs_its_completions(two_steps_short):
  settings = runs.config(
    rewards__verifier='tests.support.bad_verifiers:fails',
    rewards__num_workers=1,
    rewards__time_limit_s=0.2,
  )
  _rewrite_config(two_steps_short, settings)
  runs.run(settings, two_steps_short)
  stream = runs.parts(settings).prompts
  for row in runs.rows(two_steps_short)[-3:-1]:
    kinds = stream.batch(row['step'] - 1).example_id % 16
    assert row['rewards/timeouts'] == np.mean(kinds == 0)
    assert row['rewards/errors'] == np.mean((kinds > 0) & (kinds < 8))
    assert row['rewards/mean'] == np.mean(kinds >= 8)
    assert row['rewards/reason_timeout'] == row['rewards/timeouts']
    assert row['rewards/reason_error'] == row['rewards/errors']
    assert row['rewards/reason_right'] == row['rewards/mean']
  kinds = runs.parts(settings).held_out.first(32).example_id % 16
  last = runs.rows(two_steps_short)[-1]
  assert last['evaluation/sampled_accuracy'] == np.mean(kinds >= 8)


@pytest.mark.slow
def test_a_finished_run_goes_on_for_more_steps(tmp_path, capsys):
  settings = runs.smallest(optimizer__schedule='constant')
  longer = runs.smallest(optimizer__schedule='constant')
  longer.num_steps = 2
  runs.run(settings, tmp_path / 'one')
  resolved = runs.experiment(longer).resolved
  with pytest.raises(ValueError, match='num_steps=1, now 2; add --extend'):
    runs.run(longer, tmp_path / 'one')
  workdir.check_config(tmp_path / 'one', resolved, extend=True)
  runs.run(longer, tmp_path / 'one')
  assert 'Resuming from step 1 of 2.' in capsys.readouterr().err
  runs.run(longer, tmp_path / 'two')
  states = [runs.state(tmp_path / name, longer) for name in ('one', 'two')]
  assert states[0] == states[1]


def test_profile_and_tensorboard_are_written(capsys, two_steps_short, finished):
  settings = runs.config(
    profile__start_step=5, profile__num_steps=1, writers__tensorboard=True
  )
  runs.run(settings, two_steps_short)
  profile = two_steps_short / 'profile'
  assert f'profile: {profile}' in capsys.readouterr().err
  traces = list(profile.rglob('*.xplane.pb'))
  assert [trace.stat().st_size > 0 for trace in traces] == [True]
  events = list((two_steps_short / 'tensorboard').iterdir())
  assert [event.stat().st_size > 100 for event in events] == [True]
  runs.assert_same(two_steps_short, finished)


@pytest.mark.slow
def test_routes_are_replayed_for_the_policy_that_sampled(tmp_path, monkeypatch):
  """Not for the reference, whose routers are its own; with a reward model."""
  replayed = []
  compile_scorer = compiled.compile_scorer

  def spy(*args):
    scorer = compile_scorer(*args)

    def score(params, rollout):
      replayed.append(rollout.routes is not None)
      return scorer(params, rollout)

    return score

  monkeypatch.setattr(compiled, 'compile_scorer', spy)
  settings = runs.smallest(
    model__num_experts=4,
    model__num_experts_per_tok=2,
    model__moe_intermediate_size=8,
    sampling__precision='bfloat16',
    learner__router_replay=True,
    learner__num_microbatches=2,
    trust_region__anchor='recomputed',
    objective__kl_coefficient=0.1,
    objective__load_balance_coefficient=0.5,
    data__dynamic_sampling='resample',
    rewards__model=str(_REWARD_MODEL),
    rewards__model_weight=0.1,
    rewards__model_max_length=64,
  )
  built = runs.experiment(settings)
  assert built.sampling.with_routes
  assert not built.evaluation.sampled.with_routes
  assert built.loss.load_balance_coefficient == 0.25  # Of either microbatch.
  runs.run(settings, tmp_path)
  _all_finite(tmp_path)
  assert replayed == [True, False]
  found = {k: v for row in runs.rows(tmp_path) for k, v in row.items()}
  assert found['router/load_balance'] >= 1.5
  assert 0 < found['router/entropy'] <= math.log(4)
  assert 0.25 <= found['router/max_expert_share'] <= 0.5
  assert found['rewards/model_std'] > 0
  assert found['rewards/model_failed'] == 0


def test_a_reward_model_alone_rewards_and_evaluates(capsys, tmp_path):
  settings = runs.smallest(
    rewards__verifier='none',
    rewards__truncated='mask',
    rewards__model=str(_REWARD_MODEL),
    rewards__model_max_length=64,
    evaluation__reward='model',
    evaluation__truncated='score',
    evaluation__greedy=False,
    checkpoints__best_metric='evaluation/model_score',
  )
  summary = runs.run(settings, tmp_path)
  _all_finite(tmp_path)
  rows = runs.rows(tmp_path)
  (trained,) = [row for row in rows if 'rewards/mean' in row][-1:]
  assert trained['rewards/mean'] == pytest.approx(trained['rewards/model_mean'])
  assert trained['rewards/reason_right'] == 0
  evaluated = [row for row in rows if 'evaluation/model_score' in row]
  assert evaluated[-1]['evaluation/model_score'] != 0
  assert not any('evaluation/sampled_accuracy' in row for row in rows)
  assert summary['held_out_after'] == evaluated[-1]['evaluation/model_score']
  assert 'held-out score ' in capsys.readouterr().err
