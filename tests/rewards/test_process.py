"""One worker process, without a pool."""

import math
import os
import select
import signal
import time

import pytest

from dppo_jax.rewards import process as process_lib
from dppo_jax.rewards.process import WorkerProcess

# Real processes and signals: a rare race is shown as a rerun.
pytestmark = pytest.mark.flaky(reruns=1)


@pytest.fixture
def worker():
  process = WorkerProcess(
    {
      'kind': 'verifier',
      'terms': ['exact_match'],
      'extraction': ['whole'],
      'read_thoughts': False,
      'time_limit_s': 5.0,
      'wall_limit_s': 20.0,
      'memory_limit_bytes': 2**30,
    }
  )
  yield process
  process.stop()


def _hear(worker):
  messages = []
  while not messages:
    assert select.select([worker.replies], [], [], 30.0)[0]
    messages = worker.receive()
    assert messages is not None  # It has died.
  return messages


def test_it_says_when_it_is_ready_then_answers(worker):
  assert not worker.ready
  assert _hear(worker) == ['']
  items = [('a', {'answer': 'a'}, False), ('\ud800', {'answer': 'b'}, False)]
  worker.send([1, 0], items)
  assert list(worker.pending) == [1, 0]
  now = time.monotonic()
  assert now < worker.late < worker.deadline <= now + 20.0
  messages = _hear(worker)
  while len(messages) < 3:
    messages += _hear(worker)
  assert messages == [True, [1, [[0.0, 'wrong']]], [0, [[1.0, 'right']]]]
  before = worker.deadline
  assert worker.answered() == 1
  assert before < worker.deadline < math.inf  # Each item has its own time.
  assert worker.answered() == 0
  assert worker.deadline == worker.late == math.inf


def test_a_death_is_heard_and_writing_to_the_dead_is_no_error(worker):
  _hear(worker)
  worker.process.kill()
  worker.process.wait()
  worker.send([0], [('a', {}, False)])
  # A process may be reaped a moment before its end of the pipe is closed.
  assert select.select([worker.replies], [], [], 30.0)[0]
  assert worker.receive() is None
  assert math.isfinite(worker.deadline)
  assert not worker.timed_out()


def test_a_death_by_its_own_timer_is_a_timeout(worker):
  _hear(worker)
  worker.process.send_signal(signal.SIGPROF)
  assert select.select([worker.replies], [], [], 30.0)[0]
  assert worker.receive() is None
  assert worker.timed_out()


def test_what_a_stopped_worker_does_not_read_is_kept_for_later(worker):
  _hear(worker)
  os.kill(worker.process.pid, signal.SIGSTOP)
  text = 'a' * 2**20  # More than any pipe takes.
  worker.send([0], [(text, {'answer': text}, False)])
  assert not worker.write_some()
  os.kill(worker.process.pid, signal.SIGCONT)
  while not worker.write_some():
    select.select([], [worker.requests], [], 30.0)
  messages = _hear(worker)
  while len(messages) < 2:
    messages += _hear(worker)
  assert messages == [True, [0, [[1.0, 'right']]]]


def test_a_message_without_end_is_refused(worker, monkeypatch):
  _hear(worker)
  monkeypatch.setattr(process_lib, '_MAX_LINE', 2**17)
  monkeypatch.setattr(process_lib.os, 'read', lambda *_: b'x' * 2**16)
  worker.receive()
  worker.receive()
  with pytest.raises(ValueError, match='without end'):
    worker.receive()


def test_stopping_ends_the_process(worker):
  worker.stop()
  assert worker.process.returncode is not None
