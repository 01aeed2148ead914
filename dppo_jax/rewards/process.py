"""A worker process, as its pool sees it: what it was sent, and by when."""

import collections
from collections.abc import Iterable, Mapping, Sequence
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from typing import IO, Any, cast

START_LIMIT_S = 60.0  # Seconds a worker may take to import its verifiers.
# Share of the CPU limit, on the clock, after which a worker is late: the one
# that may take its place has the rest of it to import its modules.
_LATE = 0.25
# How a worker dies that used up its CPU time, or outlived its parent.
_TIMERS = (-signal.SIGPROF, -signal.SIGALRM)
_REAP_S = 1.0  # Seconds between the end of a pipe and that of its process.


def _plain(value: Any) -> Any:
  """NumPy values inside an example, as JSON."""
  if hasattr(value, 'tolist'):
    return value.tolist()
  return str(value)


class WorkerProcess:
  """One process: starting, then idle or busy with the items in `pending`.

  Attributes:
    pending: indices of the items it was sent and has not answered, in order.
    deadline: when it must have answered next, by the clock; inf while idle.
    late: when to start one that may take its place; inf while idle, or once
      that has been done.
    ready: whether it has loaded its verifiers.
    process: the process.
    replies: its end of the pipe that carries verdicts.
  """

  def __init__(self, settings: Mapping[str, Any]):
    """Starts the process.

    Args:
      settings: 'terms', 'extraction', 'time_limit_s' (of CPU time, which the
        process itself keeps), 'wall_limit_s' (by the clock, kept here),
        'memory_limit_bytes'.
    """
    self.pending: collections.deque[int] = collections.deque()
    self.ready = False
    self.deadline = time.monotonic() + START_LIMIT_S
    self.late = math.inf
    self._late_s = _LATE * settings['time_limit_s']
    self._wall_limit_s = settings['wall_limit_s']
    self._buffer = b''
    self.process = subprocess.Popen(
      # -P: its import path is that of this process and nothing else.
      [sys.executable, '-P', '-m', 'dppo_jax.rewards.worker'],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      bufsize=0,
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
      # Ctrl-C is the parent's to handle; and the group dies together.
      start_new_session=True,
    )
    # Popen leaves them None only where no pipe was asked for.
    self._requests = cast(IO[bytes], self.process.stdin)
    self.replies = cast(IO[bytes], self.process.stdout)
    self._write(settings)

  def _write(self, message: Any) -> None:
    line = memoryview(json.dumps(message, default=_plain).encode() + b'\n')
    with contextlib.suppress(OSError):  # It has died; reading says so.
      while line:
        line = line[self._requests.write(line) :]

  def send(self, indices: Iterable[int], items: Sequence[Any]) -> None:
    """Sends a chunk to an idle worker; the clock runs from now.

    Args:
      indices: of the items to send, in order.
      items: all of the batch, (completion, example, truncated).
    """
    self.pending.extend(indices)
    self._write([(i, *items[i]) for i in self.pending])
    self._expect()

  def _expect(self) -> None:
    """Sets by when it must have answered the next item, if there is one."""
    now = time.monotonic() if self.pending else math.inf
    self.deadline = now + self._wall_limit_s
    self.late = now + self._late_s

  def answered(self) -> int:
    """Takes the item off that it has answered; its index."""
    index = self.pending.popleft()
    self._expect()
    return index

  def receive(self) -> list[Any] | None:
    """Messages that have arrived, perhaps none; None once it has died."""
    data = os.read(self.replies.fileno(), 65536)
    if not data:
      return None
    *lines, self._buffer = (self._buffer + data).split(b'\n')
    return [json.loads(line) for line in lines]

  def timed_out(self) -> bool:
    """Whether its own timer ended it, once `receive` has returned None."""
    try:
      return self.process.wait(_REAP_S) in _TIMERS
    except subprocess.TimeoutExpired:  # It closed the pipe and lives on.
      return False

  def stop(self) -> None:
    """Kills the process and whatever it started."""
    if self.process.returncode is None:
      # It may have ended by itself.
      with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(self.process.pid, signal.SIGKILL)
    self._requests.close()
    self.replies.close()
    self.process.wait()
