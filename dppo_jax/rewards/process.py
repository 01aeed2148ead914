"""Worker process as seen by its pool: pending items and deadlines."""

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
# Wall-clock seconds, as a share of the CPU limit, after which a worker is late:
# its spare then has the remaining time to import its modules.
_LATE = 0.25
# Exit codes of a worker that exceeded its CPU time, or outlived its parent.
_TIMERS = (-signal.SIGPROF, -signal.SIGALRM)
_REAP_S = 1.0  # Seconds allowed between end of pipe and end of process.


def _plain(value: Any) -> Any:
  """JSON value of a NumPy value inside an example."""
  if hasattr(value, 'tolist'):
    return value.tolist()
  return str(value)


class WorkerProcess:
  """One process: starting, then idle or busy with the items in `pending`.

  Attributes:
    pending: indices of items sent and not yet answered, in order.
    deadline: clock time by which the next answer is due; inf while idle.
    late: clock time at which to start a spare worker; inf while idle, or once
      one has been started.
    ready: whether it has loaded its verifiers.
    process: the process.
    replies: read end of the pipe that carries verdicts.
  """

  def __init__(self, settings: Mapping[str, Any]):
    """Starts the process.

    Args:
      settings: 'terms', 'extraction', 'time_limit_s' (CPU time, enforced by
        the process itself), 'wall_limit_s' (wall clock, enforced here),
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
      # -P: the same import path as this process, without the working directory.
      [sys.executable, '-P', '-m', 'dppo_jax.rewards.worker'],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      bufsize=0,
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
      # The parent handles Ctrl-C; one signal ends the whole group.
      start_new_session=True,
    )
    # Popen leaves them None only without a pipe.
    self._requests = cast(IO[bytes], self.process.stdin)
    self.replies = cast(IO[bytes], self.process.stdout)
    self._write(settings)

  def _write(self, message: Any) -> None:
    line = memoryview(json.dumps(message, default=_plain).encode() + b'\n')
    with contextlib.suppress(OSError):  # It died; `receive` will find out.
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
    """Sets the deadline of the next pending item, if there is one."""
    now = time.monotonic() if self.pending else math.inf
    self.deadline = now + self._wall_limit_s
    self.late = now + self._late_s

  def answered(self) -> int:
    """Index of the item just answered, removed from `pending`."""
    index = self.pending.popleft()
    self._expect()
    return index

  def receive(self) -> list[Any] | None:
    """Messages that have arrived, possibly none; None once it has died."""
    data = os.read(self.replies.fileno(), 65536)
    if not data:
      return None
    *lines, self._buffer = (self._buffer + data).split(b'\n')
    return [json.loads(line) for line in lines]

  def timed_out(self) -> bool:
    """Whether its own timer ended it, once `receive` has returned None."""
    try:
      return self.process.wait(_REAP_S) in _TIMERS
    except subprocess.TimeoutExpired:  # It closed the pipe and still runs.
      return False

  def stop(self) -> None:
    """Kills the process and its children."""
    if self.process.returncode is None:
      # It may have exited already.
      with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(self.process.pid, signal.SIGKILL)
    self._requests.close()
    self.replies.close()
    self.process.wait()
