import os
import signal

import pytest

from dppo_jax.runtime.hosts import coordination, preemption
from dppo_jax.runtime.hosts.preemption import Preempted, stop_on_signals


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
