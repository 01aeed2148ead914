"""A pool of verifier processes: no verifier can end or stall a run.

What raises, hangs, exits, eats memory or returns nonsense costs its own item
the reward, with the reason in its verdict; every other item is still verified.
"""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
import contextlib
import difflib
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import IO, Any, Self, cast

from dppo_jax.rewards import verifiers
from dppo_jax.rewards.verifiers import Verdict

CHUNK_SIZE = 16  # Items sent at once; their replies must fit into a pipe.
MEMORY_LIMIT_BYTES = 2**32  # Address space of a worker.
START_LIMIT_S = 60.0  # Seconds a worker may take to import its verifier.
_TIMEOUT, _CRASHED = 'timeout', 'crashed'


def _plain(value: Any) -> Any:
  """NumPy values inside an example, as JSON."""
  if hasattr(value, 'tolist'):
    return value.tolist()
  return str(value)


class _Worker:
  """One process: starting, then idle or busy with the items in `pending`.

  Attributes:
    pending: indices of the items it was sent and has not answered, in order.
    deadline: when it must have answered next; inf while idle.
    ready: whether it has loaded the verifier.
    process: the process.
    replies: its end of the pipe that carries verdicts.
  """

  def __init__(self, verifier: str, time_limit_s: float):
    self.pending: collections.deque[int] = collections.deque()
    self.ready = False
    self.deadline = time.monotonic() + START_LIMIT_S
    self._time_limit_s = time_limit_s
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
    settings = {
      'verifier': verifier,
      'time_limit_s': time_limit_s,
      'memory_limit_bytes': MEMORY_LIMIT_BYTES,
    }
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
    self.pending.extend(indices)
    self._write([(i, *items[i]) for i in self.pending])
    self.deadline = time.monotonic() + self._time_limit_s

  def receive(self) -> list[Any] | None:
    """Messages that have arrived, perhaps none; None once it has died."""
    data = os.read(self.replies.fileno(), 65536)
    if not data:
      return None
    *lines, self._buffer = (self._buffer + data).split(b'\n')
    if lines:
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


def _resolve(verifier: str | verifiers.Verifier) -> str:
  """The name under which a worker finds a verifier."""
  if callable(verifier):
    for name, known in verifiers.VERIFIERS.items():
      if known is verifier:
        return name
    module = getattr(verifier, '__module__', None)
    qualified = getattr(verifier, '__qualname__', '<locals>')
    if module in (None, '__main__') or '<' in qualified:
      raise ValueError(
        f'rewards.verifier: {verifier!r} cannot be imported by a worker; '
        'define it at the top of a module other than the main program.'
      )
    return f'{module}:{qualified}'
  module, _, function = verifier.partition(':')
  if verifier not in verifiers.VERIFIERS and not (module and function):
    known = list(verifiers.VERIFIERS)
    close = difflib.get_close_matches(verifier, known, n=1)
    hint = f'did you mean {close[0]!r}? ' if close else ''
    raise ValueError(
      f'rewards.verifier: unknown {verifier!r}; {hint}Known: '
      f"{', '.join(known)}, or 'package.module:function'."
    )
  return verifier


class VerifierPool:
  """Verifies completions in worker processes, or in this one.

  Use it as a context manager, or call `close`. Without workers nothing can
  interrupt a verifier, so only the rows of `VERIFIERS` may run that way.
  """

  def __init__(
    self,
    verifier: str | verifiers.Verifier,
    num_workers: int,
    time_limit_s: float,
  ):
    """Starts the workers and waits until they have loaded the verifier.

    Args:
      verifier: a row of `VERIFIERS`, 'package.module:function' (trusted: it is
        imported), or a function that a worker can import.
      num_workers: processes; 0 verifies in this one.
      time_limit_s: seconds one item may take, in a worker.

    Raises:
      ValueError: a bad argument, a verifier that cannot be imported, or one of
        the user's without workers.
    """
    if num_workers < 0:
      raise ValueError(f'rewards.num_workers: got {num_workers}; 0 or more.')
    if not (math.isfinite(time_limit_s) and time_limit_s > 0):
      raise ValueError(
        f'rewards.time_limit_s: got {time_limit_s}; a positive number of '
        'seconds.'
      )
    self._name = _resolve(verifier)
    if num_workers == 0 and self._name not in verifiers.VERIFIERS:
      raise ValueError(
        f'rewards.num_workers: got 0 for the verifier {self._name!r}; one '
        'that is not built in needs at least 1, so that it can be stopped.'
      )
    self._time_limit_s = time_limit_s
    self._num_workers = num_workers
    self._closed = False
    self._workers: list[_Worker] = []
    self._selector = selectors.DefaultSelector()
    try:
      self._start_missing()
      self._await_ready()
    except BaseException:
      self.close()
      raise

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def close(self) -> None:
    """Ends the workers; the pool verifies nothing after that."""
    self._closed = True
    self._stop_all()
    self._selector.close()

  def verify(
    self,
    completions: Sequence[str],
    examples: Sequence[Mapping[str, Any]],
    truncated: Any,
  ) -> list[Verdict]:
    """Verifies a batch.

    Args:
      completions: B texts, without the end token.
      examples: B data rows.
      truncated: B booleans, whether the length limit cut the completion.

    Returns:
      B verdicts, in order. Reward 0.0 with 'timeout', 'crashed' or 'error: …'
      where the verifier failed.

    Raises:
      ValueError: the lengths differ, or the pool is closed.
    """
    if self._closed:
      raise ValueError('the verifier pool is closed; make a new one.')
    if hasattr(truncated, 'tolist'):  # An array of NumPy or JAX.
      truncated = truncated.tolist()
    flags = [bool(flag) for flag in truncated]
    if not len(completions) == len(examples) == len(flags):
      raise ValueError(
        f'{len(completions)} completions, {len(examples)} examples and '
        f'{len(flags)} truncated flags; their numbers must be equal.'
      )
    items = list(zip(completions, examples, flags, strict=True))
    if self._num_workers == 0:
      verifier = verifiers.VERIFIERS[self._name]
      return [verifiers.verify_safely(verifier, *item) for item in items]
    try:
      return self._verify_in_workers(items)
    except BaseException:
      # Half-answered workers would answer the next batch.
      self._stop_all()
      raise

  def _verify_in_workers(self, items: Sequence[Any]) -> list[Verdict]:
    verdicts = [Verdict(0.0, _CRASHED)] * len(items)
    todo = collections.deque(range(len(items)))

    def on_verdict(worker: _Worker, message: Any) -> None:
      index, reward, reason = message
      if index != worker.pending[0]:
        raise ValueError(f'a verdict on item {index}, which was not due.')
      verdicts[worker.pending.popleft()] = Verdict(reward, reason)

    def on_failure(worker: _Worker, reason: str) -> None:
      if worker.pending:
        verdicts[worker.pending.popleft()] = Verdict(0.0, reason)
        todo.extend(worker.pending)
      if worker.ready:  # Else it failed to start, and would again.
        self._start_missing()

    for worker in list(self._workers):
      if worker.process.poll() is not None:  # Died idle; no item is to blame.
        self._remove(worker)
    self._start_missing()
    while todo or any(worker.pending for worker in self._workers):
      for worker in self._workers:
        if worker.ready and not worker.pending and todo:
          size = min(CHUNK_SIZE, len(todo))
          worker.send([todo.popleft() for _ in range(size)], items)
      if not self._workers:
        break  # None starts any more: what is left counts as crashed.
      self._wait(on_verdict, on_failure)
    return verdicts

  def _wait(
    self,
    on_verdict: Callable[[_Worker, Any], None],
    on_failure: Callable[[_Worker, str], None],
  ) -> None:
    """Handles what the workers say next, or fail to say in time."""
    deadline = min(worker.deadline for worker in self._workers)
    timeout = None
    if math.isfinite(deadline):
      timeout = max(0.0, deadline - time.monotonic())
    heard = {key.data for key, _ in self._selector.select(timeout)}
    now = time.monotonic()
    for worker in list(self._workers):
      if worker in heard:
        failure = self._listen(worker, on_verdict)
      else:
        failure = _TIMEOUT if worker.deadline < now else None
      if failure:
        self._remove(worker)
        on_failure(worker, failure)

  def _listen(
    self, worker: _Worker, on_verdict: Callable[[_Worker, Any], None]
  ) -> str | None:
    """Takes a worker's messages; says why where it can serve no longer."""
    try:
      messages = worker.receive()
      if messages is None:
        return _CRASHED
      for message in messages:
        if worker.ready:
          on_verdict(worker, message)
        elif message:
          return message  # It could not import the verifier.
        else:
          worker.ready = True
    except (ValueError, TypeError, LookupError):
      return _CRASHED  # Something else wrote into its reply.
    if not worker.pending:
      worker.deadline = math.inf
    return None

  def _await_ready(self) -> None:
    def on_failure(worker: _Worker, reason: str) -> None:
      del worker
      if reason not in (_TIMEOUT, _CRASHED):
        raise ValueError(reason)
      raise ValueError(
        f'rewards.verifier: a worker ended ({reason}) while it imported '
        f'{self._name!r}; it may take {START_LIMIT_S:g} s and '
        f'{MEMORY_LIMIT_BYTES >> 20} MiB.'
      )

    while not all(worker.ready for worker in self._workers):
      self._wait(lambda worker, message: None, on_failure)

  def _start_missing(self) -> None:
    while len(self._workers) < self._num_workers:
      worker = _Worker(self._name, self._time_limit_s)
      self._workers.append(worker)
      self._selector.register(worker.replies, selectors.EVENT_READ, worker)

  def _remove(self, worker: _Worker) -> None:
    self._selector.unregister(worker.replies)
    self._workers.remove(worker)
    worker.stop()

  def _stop_all(self) -> None:
    for worker in list(self._workers):
      self._remove(worker)
