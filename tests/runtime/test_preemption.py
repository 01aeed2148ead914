import os
import signal

import pytest

from dppo_jax.runtime.preemption import Preempted, stop_on_signals


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
