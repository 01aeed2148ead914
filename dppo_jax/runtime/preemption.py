"""SIGTERM and Ctrl-C: finish the step, save, leave."""

from collections.abc import Iterator
import contextlib
import signal
from types import FrameType


class Preempted(Exception):
  """The run was asked to stop; what could be saved is saved.

  Attributes:
    signal_number: which signal asked.
    exit_code: 128 + the signal, as shells report it.
  """

  def __init__(self, signal_number: int, message: str):
    super().__init__(message)
    self.signal_number = signal_number
    self.exit_code = 128 + signal_number


class StopRequest:
  """Remembers the first signal; the loop looks between steps."""

  def __init__(self) -> None:
    self.signal_number: int | None = None

  def __bool__(self) -> bool:
    return self.signal_number is not None

  def stop(self, message: str) -> Preempted:
    """The exception to raise once everything is saved."""
    return Preempted(self.signal_number or signal.SIGTERM, message)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
  """Turns the first SIGTERM or SIGINT into a request to stop.

  A second one has its usual effect, so that a run that hangs can be ended.
  """
  request = StopRequest()
  before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

  def on_signal(number: int, frame: FrameType | None) -> None:
    del frame
    request.signal_number = number
    for each, handler in before.items():
      signal.signal(each, handler)

  for each in before:
    signal.signal(each, on_signal)
  try:
    yield request
  finally:
    for each, handler in before.items():
      signal.signal(each, handler)
