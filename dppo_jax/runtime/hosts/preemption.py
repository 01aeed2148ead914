"""SIGTERM and Ctrl-C: finish the step, save, leave.

Of several processes one may get the signal, or the notice of the platform,
alone; they agree after every step, so that all of them save the same one.
"""

from collections.abc import Iterator, Mapping
import contextlib
import signal
from types import FrameType
from typing import Any

from jax.experimental import multihost_utils

from dppo_jax.runtime.hosts import coordination


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
    self._num_looks = 0

  def __bool__(self) -> bool:
    return self.signal_number is not None

  def agreed(self) -> bool:
    """Whether any process was asked to stop; all come here equally often."""
    if coordination.is_single_process():
      return bool(self)
    self._num_looks += 1
    number = self.signal_number or 0
    if multihost_utils.reached_preemption_sync_point(self._num_looks):
      number = max(number, signal.SIGTERM)
    number = coordination.largest(number)
    if number:  # Else a signal that came meanwhile waits for the next look.
      self.signal_number = number
    return bool(number)

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
    _install(before)

  for each in before:
    signal.signal(each, on_signal)
  try:
    yield request
  finally:
    _install(before)


def _install(handlers: Mapping[Any, Any]) -> None:
  for number, handler in handlers.items():
    # None: not of Python, but of JAX's preemption service, which cannot be
    # put back.
    signal.signal(number, signal.SIG_DFL if handler is None else handler)
