"""A worker process, as its pool sees it: what it was sent, and by when."""

import collections
from collections.abc import Iterable, Mapping, Sequence
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import IO, Any, cast

START_LIMIT_S = 60.0  # Seconds a worker may take to import its verifiers.


def _plain(value: Any) -> Any:
  """NumPy values inside an example, as JSON."""
  if hasattr(value, 'tolist'):
    return value.tolist()
  return str(value)


class WorkerProcess:
  """One process: starting, then idle or busy with the items in `pending`.

  Attributes:
    pending: indices of the items it was sent and has not answered, in order.
    deadline: when it must have answered next; inf while idle.
    ready: whether it has loaded its verifiers.
    followed: whether one that may take its place has been started.
    process: the process.
    replies: its end of the pipe that carries verdicts.
  """

  def __init__(self, settings: Mapping[str, Any]):
    """Starts the process.

    Args:
      settings: 'terms', 'extraction', 'read_thoughts', 'time_limit_s',
        'memory_limit_bytes'.
    """
    self.pending: collections.deque[int] = collections.deque()
    self.ready = False
    self.followed = False
    self.deadline = time.monotonic() + START_LIMIT_S
    self._time_limit_s = settings['time_limit_s']
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
    """Sends a chunk to an idle worker; its time runs from now.

    Args:
      indices: of the items to send, in order.
      items: all of the batch, (completion, example, truncated).
    """
    self.pending.extend(indices)
    self._write([(i, *items[i]) for i in self.pending])
    self.followed = False
    self.deadline = time.monotonic() + self._time_limit_s

  def receive(self) -> list[Any] | None:
    """Messages that have arrived, perhaps none; None once it has died."""
    data = os.read(self.replies.fileno(), 65536)
    if not data:
      return None
    *lines, self._buffer = (self._buffer + data).split(b'\n')
    if lines:
      self.followed = False
      self.deadline = time.monotonic() + self._time_limit_s
    return [json.loads(line) for line in lines]

  def stop(self) -> None:
    """Kills the process and whatever it started."""
    if self.process.returncode is None:
      # It may have ended by itself.
      with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(self.process.pid, signal.SIGKILL)
    self._requests.close()
    self.replies.close()
    self.process.wait()
