import os
import signal
import threading
import time

import pytest

from dppo_jax.runtime.hosts import coordination, preemption
from dppo_jax.runtime.hosts.preemption import Preempted, stop_on_signals
from tests.support import runs

# Real processes and signals: a rare race is shown as a rerun.
pytestmark = pytest.mark.flaky(reruns=1)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_request(number):
  with stop_on_signals() as stop:
    assert not stop
    os.kill(os.getpid(), number)
    assert stop
    stopped = stop.stop('Stopped.')
  assert isinstance(stopped, Preempted)
  assert stopped.exit_code == 128 + number
  assert str(stopped) == 'Stopped.'


@pytest.fixture
def interruptible():
  """A process that is started in the background ignores SIGINT."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures('interruptible')
def test_the_second_signal_acts_as_usual():
  with stop_on_signals() as stop:
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)
    assert stop


def test_the_handlers_come_back():
  numbers = (signal.SIGTERM, signal.SIGINT)
  before = [signal.getsignal(number) for number in numbers]
  with stop_on_signals():
    assert [signal.getsignal(number) for number in numbers] != before
  assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize(
  ('mine', 'theirs', 'notice', 'agreed'),
  [
    (None, 0, False, None),
    (None, signal.SIGINT, False, signal.SIGINT),
    (signal.SIGTERM, 0, False, signal.SIGTERM),
    (None, 0, True, signal.SIGTERM),
  ],
)
def test_processes_stop_together(monkeypatch, mine, theirs, notice, agreed):
  looks = []

  def reached(number):
    looks.append(number)
    return notice

  monkeypatch.setattr(coordination, 'is_single_process', lambda: False)
  monkeypatch.setattr(
    coordination, 'largest', lambda number: max(number, theirs)
  )
  monkeypatch.setattr(
    preemption.multihost_utils, 'reached_preemption_sync_point', reached
  )
  request = preemption.StopRequest()
  request.signal_number = mine
  for _ in range(2):
    assert request.agreed() == (agreed is not None)
  assert request.signal_number == agreed
  assert looks == [1, 2]


def test_a_lone_process_agrees_with_itself():
  request = preemption.StopRequest()
  assert not request.agreed()
  request.signal_number = signal.SIGTERM
  assert request.agreed()


def test_a_signal_during_the_agreement_is_not_lost(monkeypatch):
  request = preemption.StopRequest()

  def largest(number):
    request.signal_number = signal.SIGTERM
    return number

  monkeypatch.setattr(coordination, 'is_single_process', lambda: False)
  monkeypatch.setattr(coordination, 'largest', largest)
  assert [request.agreed() for _ in range(2)] == [False, True]


def test_a_closed_terminal_asks_once_and_disturbs_no_more():
  before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
  try:
    with stop_on_signals() as stop:
      os.kill(os.getpid(), signal.SIGHUP)
      os.kill(os.getpid(), signal.SIGHUP)  # Of the shell, and of the kernel.
      assert stop.stop('').exit_code == 129
    os.kill(os.getpid(), signal.SIGHUP)  # While the run says good-bye.
  finally:
    signal.signal(signal.SIGHUP, before)


def test_nohup_stays():
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    with stop_on_signals() as stop:
      os.kill(os.getpid(), signal.SIGHUP)
      assert not stop
      os.kill(os.getpid(), signal.SIGTERM)
      assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
  finally:
    signal.signal(signal.SIGHUP, before)


# The main thread computes in C for minutes and sees no signal. The thread
# names itself once the run may be abandoned.
_DEAF = """
import hashlib, os, signal, sys
from dppo_jax.runtime.hosts import preemption
preemption.GRACE_S, preemption.TWICE_S = 0.2, 0.05
preemption.own_process()
def save():
  print('saved', flush=True)
  {failure}
  return 'Stopped.'
with preemption.stop_on_signals() as stop:
  with stop.may_abandon(save):
    print('deaf', flush=True)
    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)
print('never')
"""


@pytest.mark.parametrize(
  ('failure', 'code', 'told'),
  [('', 143, 'Stopped.'), ('raise OSError("full")', 1, 'error: full')],
)
def test_a_deaf_main_thread_is_left_behind(failure, code, told):
  process = runs.start_code(_DEAF.format(failure=failure))
  assert process.stdout.readline() == 'deaf\n'
  process.send_signal(signal.SIGTERM)
  exit_code, out, err = runs.end(process)
  assert (exit_code, out) == (code, 'saved\n')
  assert told in err


def test_a_second_signal_ends_a_saving_that_hangs():
  hangs = 'import time; time.sleep(3600)'
  process = runs.start_code(_DEAF.format(failure=hangs))
  assert process.stdout.readline() == 'deaf\n'
  process.send_signal(signal.SIGTERM)
  assert process.stdout.readline() == 'saved\n'
  process.send_signal(signal.SIGINT)
  assert runs.end(process) == (130, '', '')


def test_a_main_thread_that_notices_saves_by_itself(monkeypatch):
  monkeypatch.setattr(preemption, '_may_leave', True)
  monkeypatch.setattr(preemption, 'GRACE_S', 0.0)
  with stop_on_signals() as stop:
    with stop.may_abandon(lambda: pytest.fail('not asked for')):
      pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(3 * preemption._LOOK_S)
  assert signal.set_wakeup_fd(-1) == -1
  names = [thread.name for thread in threading.enumerate()]
  assert 'signals' not in names


def test_a_process_of_others_is_never_ended():
  with stop_on_signals():
    assert signal.set_wakeup_fd(-1) == -1
