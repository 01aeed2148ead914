"""Rollouts of older parameters: which ones, and after a run was stopped."""

import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from dppo_jax.runtime import cli, loop
from dppo_jax.runtime.programs import compiled
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.reporting import recorder
from dppo_jax.runtime.rollouts import ahead as ahead_lib
from dppo_jax.runtime.rollouts import collect
from dppo_jax.runtime.storage import workdir
from dppo_jax.runtime.storage.checkpoints import Checkpoints
from tests.support import runs

# Real processes and signals: a rare race is shown as a rerun.
pytestmark = pytest.mark.flaky(reruns=1)

_NUM_STEPS = 4


def _settings(**overrides):
  settings = runs.smallest(
    **{
      'sampling__lag': 2,
      'optimizer__learning_rate': 0.05,
      'objective__entropy_coefficient': 0.1,  # A gradient in any case.
      'writers__samples_every_n_steps': 1,
      'checkpoints__every_n_steps': 2,
      'checkpoints__keep': 5,
      **overrides,
    }
  )
  settings.num_steps = _NUM_STEPS
  return settings


# What needs more of an old policy than its rollout, and the tokens alone.
_EVERYTHING = dict(
  data__dynamic_sampling='resample',
  data__max_resampling=2,
  sampling__precision='bfloat16',
  sampling__weight_noise=0.05,
  sampling__temperature_slip=0.1,
  sampling__integrity_every_n_steps=1,
  sampling__stop_strings=('3',),
  trust_region__divergence='exact_tv',
)
_KINDS = {
  'everything': _EVERYTHING,
  'recomputed': dict(
    trust_region__divergence='exact_kl',
    trust_region__anchor='recomputed',
    learner__num_microbatches=2,
  ),
}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """Kind -> the folder of a run that nothing stopped."""
  folders = {}

  def run(kind):
    if kind not in folders:
      folder = tmp_path_factory.mktemp(kind) / 'run'
      settings = _settings(**_KINDS[kind])
      facts = runs.run(settings, folder)
      assert facts['divergence'] == settings.trust_region.divergence
      assert facts['skipped_updates'] == 0
      for row in runs.rows(folder):
        assert np.isfinite([float(value) for value in row.values()]).all()
      folders[kind] = folder  # Only now: a rerun must not find it.
    return folders[kind]

  return run


@pytest.mark.parametrize('kind', _KINDS)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(
  monkeypatch, tmp_path, whole, kind
):
  """Stopped where the rollouts under way are of two policies."""
  settings, folder = _settings(**_KINDS[kind]), tmp_path / 'run'
  metrics = recorder.Stopwatch.metrics
  steps = iter(range(1, 9))

  def measure_and_signal(*args, **kwargs):
    if next(steps) == 2:
      os.kill(os.getpid(), signal.SIGTERM)
    return metrics(*args, **kwargs)

  with monkeypatch.context() as patch:
    patch.setattr(recorder.Stopwatch, 'metrics', measure_and_signal)
    code = cli.guard(lambda: runs.run(settings, folder) and 0, [''])
  assert code == 143
  latest = folder / workdir.CHECKPOINTS / '2'
  stored = json.loads((latest / 'metadata' / 'metadata').read_text())['arrays']
  under_way = {name[:7] for name in stored if name.startswith('queue.')}
  assert under_way == {'queue.0', 'queue.1'}
  assert ('queue.1.head' in stored) == (kind == 'everything')
  runs.run(settings, folder)
  runs.assert_same(folder, whole(kind), settings)


def test_metrics_say_how_old_the_policy_was(whole):
  rows = [row for row in runs.rows(whole('recomputed')) if 'rollout/lag' in row]
  assert [row['rollout/lag'] for row in rows] == [0, 1, 2, 2]
  # The sampler's own mismatch is there, and that of its age.
  ages = [row['mismatch/first_update_mean_abs'] for row in rows]
  assert ages[0] < 1e-6 < min(ages[1:])


def _spied(monkeypatch, settings, folder):
  """Runs; (parameters, key) of each call of the training sampler, states."""
  calls, states = [], []
  compile_sampler = compiled.compile_sampler

  def compile_spy(parts, config):
    sampler = compile_sampler(parts, config)

    def spy(params, prompts, key):
      calls.append((jax.device_get(params['embedding']), np.asarray(key)))
      return sampler(params, prompts, key)

    return spy

  compile_iteration = loop.compile_iteration

  def compile_and_watch(*args):
    iterate = compile_iteration(*args)

    def watch(state, meanwhile):
      states.append(jax.device_get(state.params['embedding']))
      return iterate(state, meanwhile)

    return watch

  with monkeypatch.context() as patch:
    patch.setattr(ahead_lib.compiled, 'compile_sampler', compile_spy)
    patch.setattr(loop, 'compile_iteration', compile_and_watch)
    runs.run(settings, folder)
  return calls, states


@pytest.mark.parametrize('lag', [0, 2, 9])
def test_rollouts_are_of_the_parameters_so_many_steps_before(
  monkeypatch, tmp_path, lag
):
  calls, states = _spied(monkeypatch, _settings(sampling__lag=lag), tmp_path)
  assert len(calls) == len(states) == _NUM_STEPS
  for step, (embedding, _) in enumerate(calls):
    np.testing.assert_array_equal(embedding, states[max(step - lag, 0)])
    assert step == 0 or (states[step] != states[step - 1]).any()
  assert len({key.tobytes() for _, key in calls}) == _NUM_STEPS


def test_further_attempts_are_of_the_same_parameters(monkeypatch, tmp_path):
  settings = _settings(
    sampling__lag=1,
    data__dynamic_sampling='resample',
    data__max_resampling=1,
    data__group_size=2,  # Some groups are equally long: steps draw again.
    rewards__shaping='overlong',
    rewards__overlong_cache=6,
  )
  calls, states = _spied(monkeypatch, settings, tmp_path)
  found = [
    next(s for s, each in enumerate(states) if (each == embedding).all())
    for embedding, _ in calls
  ]
  # For steps 0, 1, 0 again; 2, 1 again; 3, 2 again; 3 again. A state that
  # trained on no group is the one before it.
  first = [
    next(s for s, each in enumerate(states) if (each == state).all())
    for state in states
  ]
  assert found == [first[step] for step in (0, 0, 0, 1, 0, 2, 1, 2)]
  assert first[-1] > 1


def test_a_checkpoint_of_another_lag(tmp_path, whole):
  settings = _settings(**_KINDS['recomputed'])
  folder = shutil.copytree(whole('recomputed'), tmp_path / 'run')
  with pytest.raises(ValueError, match=r'sampling\.lag: 2 -> 1'):
    runs.run(_settings(**_KINDS['recomputed'], sampling__lag=1), folder)
  experiment = runs.experiment(settings)
  with runs.quick_compilation():
    parts = parts_lib.assemble(experiment)
    ahead = ahead_lib.RolloutQueue(experiment, parts)
    like = parts.abstract_state
    store = Checkpoints(folder / workdir.CHECKPOINTS, 5, '', read_only=True)
    # The state alone can be read, and what is missing is named.
    assert int(store.restore(like, 2)[0].step) == 2
    wanted = ahead_lib.RunState(**vars(like), queue=ahead.abstract(like, 1))
    assert [len(ahead.abstract(like, s)) for s in range(5)] == [0, 2, 2, 1, 0]
    store.restore(wanted, 2)
    with pytest.raises(ValueError, match=r'lag: queue\.0\..* nothing, w'):
      store.restore(wanted, 4)
    store.close()


def test_the_host_verifies_while_the_device_samples(monkeypatch, tmp_path):
  """While a batch is verified, the next rollout is under way, or there."""
  waiting = []
  reward = collect.reward
  under_way = []
  fill = ahead_lib.RolloutQueue.fill

  def watch_fill(self, state):
    fill(self, state)
    under_way.append(len(self.pending()))

  def watch_reward(*args):
    waiting.append(under_way[-1])
    return reward(*args)

  monkeypatch.setattr(ahead_lib.RolloutQueue, 'fill', watch_fill)
  monkeypatch.setattr(collect, 'reward', watch_reward)
  runs.run(_settings(sampling__lag=1), tmp_path)
  assert waiting == [1, 1, 1, 0]
