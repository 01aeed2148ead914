import io
import json
import subprocess
import sys
from unittest import mock

import pytest

from dppo_jax.analysis.jobs import job as job_lib
from dppo_jax.analysis.jobs import worker
from dppo_jax.configs import default, tiny
from dppo_jax.runtime.storage import metrics_log, workdir
from tests.support import runs

# Real processes and signals: a rare race is shown as a rerun.
pytestmark = pytest.mark.flaky(reruns=1)


def _serve(*requests):
  replies = io.StringIO()
  lines = io.StringIO(''.join(json.dumps(r) + '\n' for r in requests))
  with (
    runs.quick_compilation(),
    # Of this process, whose other tests would compile everything again.
    mock.patch.object(worker.jax, 'clear_caches') as clear,
  ):
    code = worker.serve(tiny.get_config, lines, replies, num_devices=1)
  assert clear.call_count == len(requests)
  return code, [json.loads(line) for line in replies.getvalue().splitlines()]


@pytest.fixture(scope='module')
def served(tmp_path_factory):
  """A job that cannot be built, then one that is finished."""
  root = tmp_path_factory.mktemp('served')
  config = runs.smallest().to_dict()
  broken = {**config, 'num_steps': -1}
  return root, _serve(
    {'folder': str(root / 'broken'), 'config': broken},
    {'folder': str(root / 'fine'), 'config': config},
  )


def test_a_failure_is_reported_and_the_next_job_runs(served):
  root, (code, replies) = served
  assert code == 0
  assert replies[0]['error'].startswith('ValueError: ')
  assert 'num_steps' in replies[0]['error']
  assert replies[1] == {'error': ''}
  assert not (root / 'broken' / job_lib.FACTS).exists()


def test_a_finished_run_keeps_its_metrics_and_no_weights(served):
  root, _ = served
  made = job_lib.Job(name='a', config=runs.smallest().to_dict())
  outcome = job_lib.finished(made, root / 'fine')
  assert outcome is not None
  assert outcome.wall_s > 0
  assert 'CPU core' in outcome.device
  rows = metrics_log.read_rows(outcome.folder / metrics_log.METRICS_FILE)
  assert any('rewards/mean' in row for row in rows)
  assert not (outcome.folder / workdir.CHECKPOINTS).exists()
  assert 'held-out' in (outcome.folder / job_lib.LOG).read_text()


def test_requests_are_answered_on_a_channel_of_their_own(tmp_path):
  broken = default.get_config().to_dict() | {'num_steps': -1}
  requests = [
    {'folder': str(tmp_path / name), 'config': config}
    for name, config in (('a', broken), ('b', {}))
  ]
  done = subprocess.run(
    [sys.executable, '-m', worker.__name__],
    input=''.join(json.dumps(request) + '\n' for request in requests),
    cwd=runs.ROOT,
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  replies = [json.loads(line) for line in done.stdout.splitlines()]
  assert 'num_steps: got -1' in replies[0]['error']
  assert 'written by another version' in replies[1]['error']
  assert 'num_steps: got -1' in done.stderr
