"""Worker process as seen by its pool: pending items and deadlines."""

import collections
from collections.abc import Iterable, Mapping, Sequence
import contextlib
import json
import math
import os
import secrets
import signal
import subprocess
import sys
import time
from typing import IO, Any, cast

from dppo_jax import bounded_json, reasoning_tasks
from dppo_jax.rewards import descendants

START_LIMIT_S = 60.0  # Seconds a worker may take to import its verifiers.
# Wall-clock seconds, as a share of the CPU limit, after which a worker is late:
# its spare then has the remaining time to import its modules.
_LATE = 0.25
# Exit codes of a worker that exceeded its CPU time, or outlived its parent.
_TIMERS = (-signal.SIGPROF, -signal.SIGALRM)
_REAP_S = 1.0  # Seconds allowed between end of pipe and end of process.
_LOOK_S = 0.01
_MAX_LINE = 1 << 20  # Bytes per reply; a verdict takes a few hundred.
_READ = 1 << 16
BEGUN = True  # A worker's message that it has read a chunk.


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
    begun: whether it has looked at its items: until then its end is no
      fault of theirs.
    process: the process.
    requests: non-blocking write end of the pipe that carries items.
    replies: non-blocking read end of the pipe that carries verdicts.
    output: non-blocking read end of the pipe of what verifiers print.
    end: file descriptor that becomes readable once the process has ended, even
      if a child still holds its pipes; -1 where the system has none.
  """

  def __init__(self, settings: Mapping[str, Any]):
    """Starts the process.

    Args:
      settings: 'kind', 'terms', 'extraction', 'time_limit_s' (CPU time,
        enforced by the process itself), 'wall_limit_s' (wall clock, enforced
        here), 'memory_limit_bytes'.
    """
    self.pending: collections.deque[int] = collections.deque()
    self.ready = self.begun = False
    self.deadline = time.monotonic() + START_LIMIT_S
    self.late = math.inf
    self._ended_by = 0
    self._late_s = _LATE * settings['time_limit_s']
    self._wall_limit_s = settings['wall_limit_s']
    self._buffer = b''
    self._unsent = memoryview(b'')
    self._mark = secrets.token_hex(16)
    self.process = subprocess.Popen(
      # -P: the same import path as this process, without the working directory.
      [sys.executable, '-P', '-m', 'dppo_jax.rewards.worker'],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      bufsize=0,
      env={
        **os.environ,
        'PYTHONPATH': os.pathsep.join(sys.path),
        'PYTHONHASHSEED': reasoning_tasks.HASH_SEED,
        descendants.MARK: self._mark,
      },
      # The parent handles Ctrl-C; one signal ends the whole group.
      start_new_session=True,
    )
    # Popen leaves them None only without a pipe.
    self.requests = cast(IO[bytes], self.process.stdin)
    self.replies = cast(IO[bytes], self.process.stdout)
    self.output = cast(IO[bytes], self.process.stderr)
    for pipe in (self.requests, self.replies, self.output):
      os.set_blocking(pipe.fileno(), False)
    self.end = -1
    with contextlib.suppress(AttributeError, OSError):  # Not on every system.
      self.end = os.pidfd_open(self.process.pid)
    self._write(settings)

  def _write(self, message: Any) -> None:
    line = json.dumps(message, default=_plain).encode() + b'\n'
    self._unsent = memoryview(bytes(self._unsent) + line)
    self.write_some()

  def write_some(self) -> bool:
    """Writes what the pipe takes now; whether that was all there is.

    A worker that is stopped, or hangs, reads nothing: waiting for it here
    would stop the trainer with it.
    """
    try:
      while self._unsent:
        written = self.requests.write(self._unsent)
        if not written:  # The pipe is full.
          return False
        self._unsent = self._unsent[written:]
    except OSError:  # It has died; reading says so.
      self._unsent = memoryview(b'')
    return True

  def send(self, indices: Iterable[int], items: Sequence[Any]) -> None:
    """Sends a chunk to an idle worker; the clock runs from now.

    What its pipe does not take at once is left to `write_some`.

    Args:
      indices: of the items to send, in order.
      items: all of the batch; of a verifier (completion, example, truncated).
    """
    self.pending.extend(indices)
    self.begun = False
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
    """Messages that have arrived, possibly none; None once it has died.

    Raises:
      ValueError: a message is not JSON, longer than `_MAX_LINE`, or nested too
        deeply.
    """
    try:
      data = os.read(self.replies.fileno(), _READ)
    except BlockingIOError:
      return []
    if not data:
      return None
    *lines, self._buffer = (self._buffer + data).split(b'\n')
    if len(self._buffer) > _MAX_LINE:
      raise ValueError('a message without end')
    return [bounded_json.parse(line) for line in lines]

  def read_output(self) -> bytes | None:
    """What verifiers have printed, perhaps nothing; None at its end."""
    try:
      return os.read(self.output.fileno(), _READ) or None
    except BlockingIOError:
      return b''

  def timed_out(self) -> bool:
    """Whether its own timer ended it, once `receive` has returned None."""
    deadline = time.monotonic() + _REAP_S
    while not self.has_ended():
      if time.monotonic() > deadline:  # It closed the pipe and lives on.
        return False
      time.sleep(_LOOK_S)
    return self._ended_by in _TIMERS

  def has_ended(self) -> bool:
    """Whether the process has ended; its number is not free before `stop`."""
    how = os.WEXITED | os.WNOWAIT | os.WNOHANG
    try:
      found = os.waitid(os.P_PID, self.process.pid, how)
    except ChildProcessError:  # Somebody waited for it already.
      self._ended_by = self.process.returncode or 0
      return True
    if found is None:
      return False
    killed = found.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
    self._ended_by = -found.si_status if killed else found.si_status
    return True

  def stop(self) -> None:
    """Kills the process and its descendants."""
    # Until it is waited for, its number names no other group.
    with contextlib.suppress(ProcessLookupError, PermissionError):
      os.killpg(self.process.pid, signal.SIGKILL)
    descendants.kill_marked(self._mark)
    self.process.wait()
    for pipe in (self.requests, self.replies, self.output):
      with contextlib.suppress(OSError):
        pipe.close()
    if self.end >= 0:
      os.close(self.end)
      self.end = -1
