"""Who ends with a worker, and with the trainer."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from dppo_jax.rewards import descendants

# Real processes and signals: a rare race is shown as a rerun.
pytestmark = pytest.mark.flaky(reruns=1)

# A trainer with a verifier that leaves a child in its group and one outside.
_VERIFIER = """
  import os, pathlib, signal, time

  def act(completion, example, truncated):
    for number, leaves in enumerate((False, True)):
      if not (child := os.fork()):
        if leaves:
          os.setsid()
        time.sleep(600)
      pathlib.Path(example['folder'], str(number)).write_text(str(child))
    if completion == 'stop':  # What ends with its trainer cannot help.
      pathlib.Path(example['folder'], 'worker').write_text(str(os.getpid()))
      os.kill(os.getpid(), signal.SIGSTOP)
    return 1.0, 'right'
"""
_TRAINER = """
  import sys
  from dppo_jax.rewards.pool import VerifierPool

  pool = VerifierPool('leaves_children:act', 'boxed', 1, 20.0, 2048, 500.0)
  pool.verify([sys.argv[1]], [{'folder': sys.argv[2]}], [False])
  print('verified', flush=True)
  sys.stdin.read()
"""
_END_S = 60.0  # Against a hang only.


def lives(pid):
  try:
    status = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except OSError:
    return False
  return status.rpartition(')')[2].split()[0] != 'Z'


def _await(condition):
  until = time.monotonic() + _END_S
  while not condition() and time.monotonic() < until:
    time.sleep(0.01)
  return condition()


def _kill_a_trainer(folder, completion, names):
  """Kills one whose verifier has written those files; the ids in them."""
  (folder / 'leaves_children.py').write_text(textwrap.dedent(_VERIFIER))
  with subprocess.Popen(
    [sys.executable, '-c', textwrap.dedent(_TRAINER), completion, str(folder)],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(folder), *sys.path])},
    stdin=subprocess.PIPE,
    stdout=subprocess.DEVNULL,
  ) as trainer:
    paths = [folder / name for name in names]
    assert _await(lambda: all(p.exists() and p.read_text() for p in paths))
    trainer.kill()
  return [int(path.read_text()) for path in paths]


def test_children_of_verifiers_end_with_a_killed_trainer(tmp_path):
  for pid in _kill_a_trainer(tmp_path, 'a', ['0', '1']):
    assert _await(lambda pid=pid: not lives(pid))


def test_a_stopped_worker_ends_with_a_killed_trainer(tmp_path):
  for pid in _kill_a_trainer(tmp_path, 'stop', ['0', '1', 'worker']):
    assert _await(lambda pid=pid: not lives(pid))


def test_only_marked_processes_are_killed():
  def start(mark):
    return subprocess.Popen(
      ['sleep', '600'], env={**os.environ, descendants.MARK: mark}
    )

  with start('test-a') as marked, start('test-ab') as other:
    descendants.kill_marked('test-a')
    assert marked.wait(_END_S) == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
