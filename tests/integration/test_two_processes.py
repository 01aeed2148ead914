"""Two real processes of two devices each: they train as one of four does."""

import contextlib
import socket
from types import SimpleNamespace

import numpy as np
import pytest

from dppo_jax.runtime.hosts import cluster
from dppo_jax.runtime.storage import metrics_log, workdir
from dppo_jax.runtime.storage.checkpoints import Checkpoints
from tests.support import factories, pairs, runs

# Real processes: a rare race is shown as a rerun.
pytestmark = [pytest.mark.slow, pytest.mark.flaky(reruns=1)]

_NUM_STEPS = 10
_SAVED = 5
_SETTINGS = {
  'num_steps': _NUM_STEPS,
  'data.num_prompts': 4,
  'data.group_size': 2,
  'learner.num_minibatches': 1,
  'learner.share_prompt_prefix': False,
  'sft.num_steps': 0,
  'evaluation.every_n_steps': 0,
  'evaluation.greedy': False,
  'evaluation.num_prompts': 4,
  'evaluation.final_num_prompts': 8,
  'checkpoints.every_n_steps': _SAVED,
  'writers.samples_every_n_steps': 1,
  'writers.num_samples': 8,  # Every completion.
  'mesh.fsdp': 2,
  'sampling.lag': 1,
}

# After which a process that was killed must be missed, seconds.
_SILENT_S = 20


@pytest.fixture(scope='module')
def life(tmp_path_factory):
  """A run of two processes, one of which is killed; then finished."""
  folder = tmp_path_factory.mktemp('two') / 'run'
  saved = folder / workdir.CHECKPOINTS / str(_SAVED)
  pair = pairs.two(folder, _SETTINGS, time_limit_s=_SILENT_S)
  runs.wait(lambda: saved.is_dir() and runs.last_step(folder) > _SAVED, *pair)
  pair[1].kill()
  killed = pairs.end(pair)
  return SimpleNamespace(
    folder=folder,
    killed=killed,
    rows_before=runs.rows(folder),
    finished=pairs.end(pairs.two(folder, _SETTINGS)),
  )


def test_a_killed_process_ends_the_other_in_time(life):
  first = life.killed[0]
  # Had it waited longer than it may, JAX's runtime would have aborted it.
  assert first.code == cluster.PEER_FAILED
  assert f'process 1 ({socket.gethostname()})' in first.err


def test_a_restart_repeats_the_lost_steps_bit_for_bit(life):
  assert [each.code for each in life.finished] == [0, 0], life.finished
  resuming = f'Resuming from step {_SAVED} of {_NUM_STEPS}.'
  assert resuming in life.finished[0].err
  lost = [row for row in life.rows_before if row['step'] > _SAVED]
  again = [row for row in runs.rows(life.folder) if row['step'] > _SAVED]
  assert lost
  assert again[: len(lost)] == lost
  assert again[-1]['step'] == _NUM_STEPS


def test_two_processes_train_as_one_does(tmp_path, life):
  code, _, err = runs.end(pairs.one(tmp_path / 'one', _SETTINGS))
  assert code == 0, err
  one, two = runs.rows(tmp_path / 'one'), runs.rows(life.folder)
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
    (folder / metrics_log.SAMPLES_FILE).read_text()
    for folder in (tmp_path / 'one', life.folder)
  ]
  assert samples[0] == samples[1]
  assert samples[0].count('\n') == _NUM_STEPS * 8
  # What two processes saved, one restores on a single device.
  states = [_restored(f) for f in (tmp_path / 'one', life.folder)]
  assert int(states[1].step) == _NUM_STEPS
  assert factories.relative_distance(states[1].params, states[0].params) < 1e-3


def _restored(folder):
  store = Checkpoints(folder / workdir.CHECKPOINTS, 1, '', read_only=True)
  parts = runs.parts(runs.config(**_SETTINGS | {'mesh.fsdp': 1}))
  with contextlib.closing(store):
    return store.restore(parts.abstract_state)[0]


def test_only_the_first_process_speaks(life):
  first, second = life.finished
  assert '4 × cpu, 2 processes, mesh data 2 · fsdp 2' in first.err
  assert 'held_out_after' in first.out
  assert (second.out, second.err) == ('', '')
  lines = (life.folder / metrics_log.METRICS_FILE).read_text().splitlines()
  assert len(lines) == len(set(lines))


_ENDS = """
import sys
from dppo_jax.runtime.hosts import cluster
cluster._POLL_S = 1e-4  # The watch is always about to ask.
_, port, index, code = sys.argv
address = f'127.0.0.1:{port}'
cluster.start(cluster.make_launch(address, 2, int(index), 60, {}))
sys.exit(int(code))
"""


def test_the_watch_ends_before_the_interpreter():
  """Unwound within C++, it would abort the process: exit code -6."""
  port = pairs.free_port()
  ended = pairs.end(
    [runs.start_code(_ENDS, port, i, code) for i, code in enumerate((0, 143))]
  )
  assert [(each.code, each.err) for each in ended] == [(0, ''), (143, '')]


def test_another_config_is_an_error_on_every_host(tmp_path):
  ended = pairs.end(pairs.two(tmp_path / 'run', _SETTINGS, '--config.seed=7'))
  for each in ended:
    assert each.code in (1, 75), each
    assert 'process 1' in each.err
    assert 'seed: 0 -> 7' in each.err
  assert not (tmp_path / 'run' / workdir.CONFIG).exists()


def test_an_error_of_one_host_ends_both_with_it(tmp_path):
  damaged = tmp_path / 'data'
  damaged.write_text('a file where a folder should be')
  ended = pairs.end(
    pairs.two(tmp_path / 'run', _SETTINGS, f'--config.data.data_dir={damaged}')
  )
  assert ended[1].code == 1
  assert ended[0].code != 0
  for each in ended:
    # The cause itself: it did not wait until the other was silent too long.
    assert 'data.data_dir: cannot prepare' in each.err
  assert 'process 1' in ended[0].err
