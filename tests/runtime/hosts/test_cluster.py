import socket

import jax
import pytest

from dppo_jax.runtime.hosts import cluster as cluster_lib
from tests.support import runs

# Real processes and signals: a rare race is shown as a rerun.
pytestmark = pytest.mark.flaky(reruns=1)


def _launch(coordinator=None, count=None, index=None, **environment):
  return cluster_lib.make_launch(coordinator, count, index, 60, environment)


def test_nothing_given_is_found_out():
  launch = _launch()
  assert launch == cluster_lib.Launch(
    coordinator='', num_processes=-1, process_id=-1, time_limit_s=60
  )


def test_flags_come_before_the_environment():
  launch = _launch(
    'a:1',
    JAX_COORDINATOR_ADDRESS='b:2',
    JAX_NUM_PROCESSES='4',
    JAX_PROCESS_ID='3',
  )
  assert launch == cluster_lib.Launch(
    coordinator='a:1', num_processes=4, process_id=3, time_limit_s=60
  )


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (('a:1', 2, None), 'give all three'),
    ((None, 2, 0), 'give all three'),
    (('a:1', 2, 2), 'got 2 of --num_processes=2'),
    (('a', 2, 0), 'HOST:PORT'),
    (('a:1', -2, 0), 'num_processes: got -2'),
  ],
)
def test_flags_that_do_not_fit_are_refused(given, message):
  with pytest.raises(ValueError, match=message):
    _launch(*given)


def test_an_environment_that_is_no_number_is_refused():
  with pytest.raises(ValueError, match="JAX_PROCESS_ID: got 'x'"):
    _launch(JAX_PROCESS_ID='x')


def test_a_limit_of_nothing_is_refused():
  with pytest.raises(ValueError, match='host_time_limit_s: got 0'):
    cluster_lib.make_launch(None, None, None, 0, {})


_SLURM = {
  'SLURM_JOB_ID': '1',
  'SLURM_PROCID': '0',
  'SLURM_STEP_NODELIST': 'n[1-2]',
}


@pytest.mark.parametrize(
  ('environment', 'cluster'),
  [
    ({}, ''),
    ({**_SLURM, 'SLURM_NTASKS': '2'}, 'SLURM'),
    ({**_SLURM, 'SLURM_NTASKS': '1'}, ''),
    # A shell of one task in an allocation of eight, and a step of two.
    ({**_SLURM, 'SLURM_NTASKS': '8', 'SLURM_STEP_NUM_TASKS': '1'}, ''),
    ({**_SLURM, 'SLURM_NTASKS': '8', 'SLURM_STEP_NUM_TASKS': '2'}, 'SLURM'),
    ({'OMPI_COMM_WORLD_SIZE': '2'}, 'Open MPI'),
    ({'TPU_WORKER_HOSTNAMES': 'a,b'}, 'TPU slice on GKE'),
    ({'TPU_WORKER_HOSTNAMES': 'a,b', 'JAX_PLATFORMS': 'cpu'}, ''),
  ],
)
def test_clusters_are_told_apart(monkeypatch, tmp_path, environment, cluster):
  monkeypatch.setattr(cluster_lib.importlib.util, 'find_spec', lambda _: True)
  assert cluster_lib.detect(environment, tmp_path) == cluster


def test_a_tpu_is_a_device_and_its_library(monkeypatch, tmp_path):
  (tmp_path / 'accel0').touch()
  spec = 'find_spec'
  monkeypatch.setattr(cluster_lib.importlib.util, spec, lambda _: True)
  assert cluster_lib.detect({}, tmp_path) == 'TPU slice'
  monkeypatch.setattr(cluster_lib.importlib.util, spec, lambda _: None)
  assert cluster_lib.detect({}, tmp_path) == ''


def test_a_lone_process_joins_nothing_and_keeps_its_errors(monkeypatch):
  monkeypatch.setattr(cluster_lib, 'detect', lambda *_: '')
  cluster_lib.start(_launch())
  cluster_lib.start(_launch('a:1', 1, 0))
  assert not cluster_lib.jax.distributed.is_initialized()
  assert cluster_lib.fail(1, 'message') == 1
  with pytest.raises(KeyError, match='mine'):
    cluster_lib.explain(KeyError('mine'))


def _raised(error, cause):
  try:
    raise error from cause
  except type(error) as raised:
    return raised


_COLLECTIVE = jax.errors.JaxRuntimeError('AllGather failed\nat once')


@pytest.mark.parametrize(
  ('error', 'found', 'blamed'),
  [
    (_COLLECTIVE, 'process 1 is gone', True),
    (_raised(RuntimeError('save'), _COLLECTIVE), 'process 1 is gone', True),
    (_COLLECTIVE, '', False),
    (_raised(RuntimeError('save'), OSError('full')), 'never asked', False),
    (ValueError('mine'), 'never asked', False),
  ],
)
def test_an_error_of_all_is_that_of_the_process_that_failed(
  monkeypatch, capsys, error, found, blamed
):
  published = []

  def leave(code):
    raise SystemExit(code)

  coordination = cluster_lib.coordination
  monkeypatch.setattr(cluster_lib, '_is_one_of_several', lambda: True)
  monkeypatch.setattr(cluster_lib, '_leave', leave)
  monkeypatch.setattr(coordination, 'find_cause', lambda: found)
  monkeypatch.setattr(coordination, 'publish_failure', published.append)
  if blamed:
    with pytest.raises(SystemExit, match=str(cluster_lib.PEER_FAILED)):
      cluster_lib.blame_peer(error)
    said = capsys.readouterr().err
    assert said.startswith('error: process 1 is gone\n  Seen here as: ')
  else:
    cluster_lib.blame_peer(error)
    assert not capsys.readouterr().err
  assert published == [found] * blamed


def test_a_lone_process_blames_nobody(capsys):
  cluster_lib.blame_peer(_COLLECTIVE)
  assert not capsys.readouterr().err


def test_a_count_that_is_no_number_names_its_variable(tmp_path):
  with pytest.raises(ValueError, match=r"^SLURM_NTASKS: got 'two'; a number"):
    cluster_lib.detect({'SLURM_NTASKS': 'two'}, tmp_path)


def test_the_watch_comes_before_the_service_of_jax(monkeypatch):
  limits = {}

  def initialize(**known):
    limits.update(known)
    raise RuntimeError('refused')

  monkeypatch.setattr(jax.distributed, 'initialize', initialize)
  with pytest.raises(ValueError, match=r'join the job of 2 .* \(refused\)'):
    cluster_lib.start(_launch('localhost:1', 2, 1))
  # That one aborts a half of its limit after a death, at the earliest.
  slack_s = limits['heartbeat_timeout_seconds'] / 2 - 60
  assert slack_s >= 30
  assert limits['initialization_timeout'] > 60


# The service of JAX waits for the second process, and aborts much later.
_ALONE = """
import sys
from dppo_jax.runtime.hosts import cluster
cluster.start(cluster.Launch(coordinator=sys.argv[1], num_processes=2,
                             process_id=int(sys.argv[2]), time_limit_s=1))
"""


@pytest.mark.parametrize('process_id', [0, 1])
def test_a_peer_that_never_comes_is_told_of(process_id):
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  code, _, said = runs.end(
    runs.start_code(_ALONE, address, process_id, JAX_PLATFORMS='cpu')
  )
  assert code == cluster_lib.PEER_FAILED
  assert said.startswith(
    f'error: --coordinator: process {process_id} could not join the job of 2'
    f' at {address} within 1 s. Start all processes'
  )
