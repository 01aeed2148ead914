"""SIGTERM, Ctrl-C, a closed terminal: finish the step, save, leave.

Of several processes one may get the signal, or the notice of the platform,
alone; they agree after every step, so that all of them save the same one.

Python runs a handler between two of its own instructions, and a compilation is
one of them for minutes. So the C-level handler writes to a pipe, and a thread
that reads it saves and leaves where the main thread does not come back soon.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from jax.experimental import multihost_utils

from dppo_jax.runtime.hosts import coordination

# Seconds that the main thread has to notice a signal by itself.
GRACE_S = 2.0
# Seconds after which a further signal is one that somebody sent anew; a
# launcher may pass on the first one twice.
TWICE_S = 0.5
_LOOK_S = 0.1

_may_leave = False


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
  """Remembers the first signal; the loop looks between steps.

  Attributes:
    signal_number: of the first signal that the main thread has seen.
    is_abandoning: whether another thread saves and will end the process.
  """

  def __init__(self) -> None:
    self.signal_number: int | None = None
    self.is_abandoning = False
    self._num_looks = 0
    self._lock = threading.Lock()
    self._save: Callable[[], str] | None = None

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
  def may_abandon(self, save: Callable[[], str]) -> Iterator[None]:
    """Within it, a thread may save and end the process after a signal.

    It does so where the main thread is still in there after `GRACE_S`, and
    only in a process of its own; see `own_process`. Several processes must
    agree what they save, and do so when all of their main threads look.

    Args:
      save: saves what is to be saved, from another thread; returns what to
        say of it.
    """
    with self._lock:
      self._save = save if coordination.is_single_process() else None
    try:
      yield
    finally:
      with self._lock:  # Held for ever once the process is being ended.
        self._save = None

  def abandon(self, number: int) -> None:
    """Saves and ends the process, if it is where that is allowed.

    Args:
      number: of the signal that asked for it.
    """
    with self._lock:
      if self._save is None:
        return
      self.is_abandoning = True
      code = 128 + number
      try:
        message = self._save()
      except Exception as error:  # Nothing may keep it from leaving.
        code, message = 1, f'error: {error}'
      print(message, file=sys.stderr, flush=True)
      _leave(code)


def own_process() -> None:
  """Says that this process is the run's alone, and may be ended with it."""
  global _may_leave
  _may_leave = True


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
  """Turns the first SIGTERM, SIGINT or SIGHUP into a request to stop.

  A second SIGTERM or SIGINT has its usual effect, so that a run that hangs can
  be ended. A closed terminal sends several SIGHUP, which must not disturb the
  saving; under nohup they stay ignored.
  """
  request = StopRequest()
  numbers = [signal.SIGTERM, signal.SIGINT]
  if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
    numbers.append(signal.SIGHUP)
  before: dict[Any, Any] = {s: signal.getsignal(s) for s in numbers}

  def on_signal(number: int, frame: FrameType | None) -> None:
    del frame
    request.signal_number = number
    _install({**before, signal.SIGHUP: signal.SIG_IGN})

  with _watched(request, numbers):
    for each in before:
      signal.signal(each, on_signal)
    try:
      yield request
    finally:
      _install(before)
      if request:  # What is left to do is not ended by a terminal.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


@contextlib.contextmanager
def _watched(
  request: StopRequest, numbers: list[signal.Signals]
) -> Iterator[None]:
  """Has a thread hear of signals at once, in a process of its own."""
  if not _may_leave or threading.current_thread() is not (
    threading.main_thread()
  ):
    yield
    return
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  over = threading.Event()
  watch = threading.Thread(
    target=_watch,
    args=(request, reader, frozenset(numbers), over),
    name='signals',
    daemon=True,
  )
  watch.start()
  try:
    yield
  finally:
    over.set()
    signal.set_wakeup_fd(before)
    os.close(writer)  # Ends the thread.
    watch.join()
    os.close(reader)


def _watch(
  request: StopRequest,
  reader: int,
  numbers: frozenset[int],
  over: threading.Event,
) -> None:
  """Hears of every signal; has the first one obeyed, and the next ones too."""
  first = 0.0
  while heard := os.read(reader, 1):
    number, now = heard[0], time.monotonic()
    if number not in numbers:
      continue
    if not first:
      first = now
      threading.Thread(
        target=_outwait, args=(request, number, over), daemon=True
      ).start()
    elif number != signal.SIGHUP and now - first > TWICE_S:
      # Where the main thread has seen the first, this one has its usual effect.
      if request.is_abandoning or not request:
        _leave(128 + number)


def _outwait(request: StopRequest, number: int, over: threading.Event) -> None:
  """Ends the process where the main thread does not come back in time."""
  deadline = time.monotonic() + GRACE_S
  while not over.wait(_LOOK_S):
    if time.monotonic() >= deadline:
      request.abandon(number)


def _leave(code: int) -> None:
  sys.stdout.flush()
  # The main thread is in native code: an orderly end would wait for it.
  os._exit(code)


def _install(handlers: Mapping[Any, Any]) -> None:
  for number, handler in handlers.items():
    # None: not of Python, but of JAX's preemption service, which cannot be
    # put back.
    signal.signal(number, signal.SIG_DFL if handler is None else handler)
