"""Two real processes of two devices each: they train as one of four does."""

import re
import signal
import socket
import time
from types import SimpleNamespace

import numpy as np
import pytest

from dppo_jax.runtime import distributed, workdir, writers
from tests import runs

_NUM_STEPS = 10
_TIME_LIMIT_S = 15
_SETTINGS = {
  'num_steps': _NUM_STEPS,
  'data.num_prompts': 4,
  'data.group_size': 2,
  'learner.num_minibatches': 1,
  'learner.share_prompts': False,
  'supervised.num_steps': 3,
  'evaluation.every_n_steps': 5,
  'evaluation.greedy': False,
  'evaluation.num_prompts': 4,
  'evaluation.final_num_prompts': 8,
  'checkpoints.every_n_steps': 2,
  'writers.samples_every_n_steps': 1,
  'writers.num_samples': 8,  # Every completion.
  'mesh.fsdp': 2,
}
_CONFIG = runs.config(**_SETTINGS)


def _devices(count):
  return {'XLA_FLAGS': f'--xla_force_host_platform_device_count={count}'}


def _train(folder, *more, **environment):
  settings = [f'--config.{key}={value}' for key, value in _SETTINGS.items()]
  return runs.train(folder, *settings, *more, **environment)


def _free_port():
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def _pair(folder, *of_second):
  """Two processes of one job; the second may get flags of its own."""
  flags = (
    f'--coordinator=127.0.0.1:{_free_port()}',
    '--num_processes=2',
    f'--host_time_limit_s={_TIME_LIMIT_S}',
  )
  return [
    _train(
      folder,
      *flags,
      f'--process_id={index}',
      *(of_second if index else ()),
      **_devices(2),
    )
    for index in range(2)
  ]


def _end(processes):
  return [SimpleNamespace(**_ended(process)) for process in processes]


def _ended(process):
  return dict(zip(('code', 'out', 'err'), runs.end(process), strict=True))


def _last_step(folder):
  rows = writers.read_rows(folder / writers.METRICS_FILE)
  return rows[-1]['step'] if rows else -1


def _await_step(processes, folder, step):
  deadline = time.monotonic() + 120
  while _last_step(folder) < step:
    ended = [process.poll() is not None for process in processes]
    if any(ended) or time.monotonic() > deadline:
      for process in processes:
        process.kill()
      pytest.fail(str([process.communicate()[1] for process in processes]))
    time.sleep(0.005)


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
  """A run of two processes that nothing stopped."""
  folder = tmp_path_factory.mktemp('two') / 'run'
  ended = _end(_pair(folder))
  assert [each.code for each in ended] == [0, 0], ended
  return SimpleNamespace(folder=folder, ended=ended)


def test_two_processes_train_as_one_does(tmp_path, unbroken):
  code, _, err = runs.end(_train(tmp_path / 'one', **_devices(4)))
  assert code == 0, err
  one, two = runs.rows(tmp_path / 'one'), runs.rows(unbroken.folder)
  assert [row.keys() for row in one] == [row.keys() for row in two]
  for mine, theirs in zip(one, two, strict=True):
    for key, value in mine.items():
      np.testing.assert_allclose(
        float(theirs[key]), float(value), rtol=1e-4, atol=1e-5, err_msg=key
      )
  losses = [
    [row['loss/total'] for row in each if 'loss/total' in row]
    for each in (one, two)
  ]
  assert len(losses[0]) == _NUM_STEPS
  np.testing.assert_allclose(*losses, rtol=0, atol=1e-5)
  samples = [
    (folder / writers.SAMPLES_FILE).read_text()
    for folder in (tmp_path / 'one', unbroken.folder)
  ]
  assert samples[0] == samples[1]
  assert samples[0].count('\n') == _NUM_STEPS * 8


def test_only_the_first_process_speaks(unbroken):
  first, second = unbroken.ended
  assert '4 × cpu, 2 processes, mesh data 2 · fsdp 2' in first.err
  assert 'held_out_after' in first.out
  said = [s for s in second.out.splitlines() if not s.startswith('[Gloo]')]
  assert (said, second.err) == ([], '')
  lines = (unbroken.folder / writers.METRICS_FILE).read_text().splitlines()
  assert len(lines) == len(set(lines))


def test_a_life_of_interruptions_ends_as_the_unbroken_one(tmp_path, unbroken):
  folder = tmp_path / 'run'
  pair = _pair(folder)
  _await_step(pair, folder, 2)
  pair[1].send_signal(signal.SIGTERM)
  ended = _end(pair)
  assert [each.code for each in ended] == [143, 143], ended
  steps = {
    re.search(r'Stopped after step (\d+) of', each.err)[1] for each in ended
  }
  assert len(steps) == 1
  step = int(steps.pop())
  assert (folder / workdir.CHECKPOINTS / str(step)).is_dir()

  pair = _pair(folder)
  _await_step(pair, folder, step + 2)
  pair[1].kill()
  begin = time.monotonic()
  first, _ = _end(pair)
  assert time.monotonic() - begin < _TIME_LIMIT_S + 10
  assert f'Resuming from step {step} of {_NUM_STEPS}.' in first.err
  assert first.code == distributed.PEER_FAILED
  assert f'process 1 ({socket.gethostname()})' in first.err

  ended = _end(_pair(folder))
  assert [each.code for each in ended] == [0, 0], ended
  assert 'Resuming from step' in ended[0].err
  runs.assert_same(folder, unbroken.folder, _CONFIG)


def test_another_config_is_an_error_on_every_host(tmp_path):
  ended = _end(_pair(tmp_path / 'run', '--config.seed=7'))
  for each in ended:
    assert each.code in (1, 75), each
    assert 'process 1' in each.err
    assert 'seed: 0 -> 7' in each.err
  assert not (tmp_path / 'run' / workdir.CONFIG).exists()


def test_an_error_of_one_host_ends_both_with_it(tmp_path):
  damaged = tmp_path / 'data'
  damaged.write_text('a file where a folder should be')
  begin = time.monotonic()
  ended = _end(_pair(tmp_path / 'run', f'--config.data.data_dir={damaged}'))
  assert time.monotonic() - begin < _TIME_LIMIT_S + 10
  assert ended[1].code == 1
  assert ended[0].code != 0
  for each in ended:
    assert 'data.data_dir: cannot prepare' in each.err
  assert 'process 1' in ended[0].err
