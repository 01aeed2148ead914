"""A pool of verifier processes: no verifier can end or stall a run.

What raises, hangs, exits, eats memory or returns nonsense costs its own item
the reward, with the reason in its verdict; every other item is still verified.

The limit of an item counts the CPU time of its worker, which ends itself by a
timer: how busy the host is decides nothing. The clock is a wide backstop, kept
here, for what waits without computing.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
import math
import selectors
import time
from typing import TYPE_CHECKING, Any, Self

from dppo_jax.rewards import process, verifiers
from dppo_jax.rewards.answers.extraction import parse_extraction
from dppo_jax.rewards.process import WorkerProcess
from dppo_jax.rewards.terms import Term, combine, parse_terms
from dppo_jax.rewards.verdicts import (
  CRASHED,
  TIMEOUT,
  Verdict,
  verify_safely,
)

if TYPE_CHECKING:  # It imports JAX, which a verifier process must not.
  from dppo_jax.base import Verifier

CHUNK_SIZE = 32  # Items sent at once, at most.
MIN_MEMORY_MB = 256


def _name(verifier: 'Verifier') -> str:
  """The name under which a worker finds a function."""
  module = getattr(verifier, '__module__', None)
  qualified = getattr(verifier, '__qualname__', '<locals>')
  if module in (None, '__main__') or '<' in qualified:
    raise ValueError(
      f'rewards.verifier: {verifier!r} cannot be imported by a worker; '
      'define it at the top of a module other than the main program.'
    )
  return f'{module}:{qualified}'


def parse_verifier(text: str, num_workers: int) -> tuple[Term, ...]:
  """Reads `rewards.verifier`, a sum of rows and of the user's functions.

  Raises:
    ValueError: it is none, or needs workers and has none.
  """
  terms = parse_terms(
    'rewards.verifier', text, verifiers.VERIFIERS, functions=True
  )
  for term in terms:
    row = verifiers.VERIFIERS.get(term.name)
    if num_workers == 0 and (row is None or row.imports):
      kind = 'one that is not built in' if row is None else 'one that may hang'
      raise ValueError(
        f'rewards.num_workers: got 0 for the verifier {term.name!r}; {kind}'
        ' needs at least 1, so that it can be stopped.'
      )
  return terms


class VerifierPool:
  """Verifies completions in worker processes, or in this one.

  Use it as a context manager, or call `close`. Without workers nothing can
  interrupt a verifier, so only rows of `VERIFIERS` that need no such thing may
  run that way.

  Attributes:
    terms: the weighted sum that a reward is.
    extraction: keys of `EXTRACTORS`, in the order they are tried.
  """

  def __init__(
    self,
    verifier: 'str | Verifier',
    extraction: str,
    num_workers: int,
    time_limit_s: float,
    memory_limit_mb: int,
    wall_limit_s: float,
    read_thoughts: bool = False,
  ):
    """Starts the workers and waits until they have loaded the verifiers.

    Args:
      verifier: rows of `VERIFIERS` and 'package.module:function' (trusted: it
        is imported), weighted and added up: 'math + 0.1 * think_answer'; or a
        function that a worker can import.
      extraction: where rows that read answers find them: keys of `EXTRACTORS`,
        'boxed, hashes', the first that finds one counts.
      num_workers: processes; 0 verifies in this one.
      time_limit_s: seconds of CPU time one item may take, in a worker.
      memory_limit_mb: MiB of address space of a worker.
      wall_limit_s: seconds one item may take by the clock; no less.
      read_thoughts: whether an answer counts that stands in a thought only.

    Raises:
      ValueError: a bad argument, a verifier that cannot be imported, or one
        that needs workers without any.
    """
    if num_workers < 0:
      raise ValueError(f'rewards.num_workers: got {num_workers}; 0 or more.')
    if not (math.isfinite(time_limit_s) and time_limit_s > 0):
      raise ValueError(
        f'rewards.time_limit_s: got {time_limit_s}; a positive number of '
        'seconds.'
      )
    if not (math.isfinite(wall_limit_s) and wall_limit_s >= time_limit_s):
      raise ValueError(
        f'rewards.wall_limit_s: got {wall_limit_s}; a number of seconds, at'
        f' least rewards.time_limit_s={time_limit_s}.'
      )
    if memory_limit_mb < MIN_MEMORY_MB:
      raise ValueError(
        f'rewards.memory_limit_mb: got {memory_limit_mb}; at least'
        f' {MIN_MEMORY_MB}, which Python and sympy take.'
      )
    name = verifier if isinstance(verifier, str) else _name(verifier)
    self.terms = parse_verifier(name, num_workers)
    self.extraction = extractors = parse_extraction(extraction)
    self._in_process: list[Verifier] = []
    if num_workers == 0:
      self._in_process = [
        verifiers.make_verifier(
          verifiers.VERIFIERS[term.name],
          extractors,
          read_thoughts=read_thoughts,
        )
        for term in self.terms
      ]
    self._settings = {
      'terms': [term.name for term in self.terms],
      'extraction': extractors,
      'read_thoughts': read_thoughts,
      'time_limit_s': time_limit_s,
      'wall_limit_s': wall_limit_s,
      'memory_limit_bytes': memory_limit_mb << 20,
    }
    self._num_workers = num_workers
    self._closed = False
    self._workers: list[WorkerProcess] = []
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
    """Verifies a batch; see `verify_terms`.

    Returns:
      B verdicts, in order: the weighted sum of the terms' rewards, and the
      reason of the first term.
    """
    verdicts = self.verify_terms(completions, examples, truncated)
    return combine(self.terms, verdicts)

  def verify_terms(
    self,
    completions: Sequence[str],
    examples: Sequence[Mapping[str, Any]],
    truncated: Any,
  ) -> list[list[Verdict]]:
    """Verifies a batch, term by term.

    Args:
      completions: B texts, without the end token.
      examples: B data rows.
      truncated: B booleans, whether the length limit cut the completion.

    Returns:
      For each term B verdicts, in order. Reward 0.0 with 'timeout', 'memory',
      'crashed' or 'error: …' where the verifier failed.

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
      return [
        [verify_safely(verifier, *item) for item in items]
        for verifier in self._in_process
      ]
    try:
      found = self._verify_in_workers(items)
      return [[each[t] for each in found] for t in range(len(self.terms))]
    except BaseException:
      # Half-answered workers would answer the next batch.
      self._stop_all()
      raise

  def _verify_in_workers(self, items: Sequence[Any]) -> list[list[Verdict]]:
    verdicts = [[CRASHED] * len(self.terms)] * len(items)
    todo = collections.deque(range(len(items)))

    def on_verdict(worker: WorkerProcess, message: Any) -> None:
      index, found = message
      if len(found) != len(self.terms):
        raise ValueError(f'{len(found)} verdicts on an item.')
      if index != worker.pending[0]:
        raise ValueError(f'a verdict on item {index}, which was not due.')
      verdicts[worker.answered()] = [Verdict(*each) for each in found]

    def on_failure(worker: WorkerProcess, reason: str) -> None:
      if worker.pending:
        failure = [Verdict(0.0, reason)] * len(self.terms)
        verdicts[worker.pending.popleft()] = failure
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
          # Small shares of what is left: who hangs keeps few others waiting.
          size = min(CHUNK_SIZE, -(-len(todo) // (4 * self._num_workers)))
          worker.send([todo.popleft() for _ in range(size)], items)
      if not self._workers:
        break  # None starts any more: what is left counts as crashed.
      self._wait(on_verdict, on_failure)
    return verdicts

  def _wait(
    self,
    on_verdict: Callable[[WorkerProcess, Any], None],
    on_failure: Callable[[WorkerProcess, str], None],
  ) -> None:
    """Handles what the workers say next, or fail to say in time."""
    deadline = min(
      min(worker.deadline, worker.late) for worker in self._workers
    )
    timeout = None
    if math.isfinite(deadline):
      timeout = max(0.0, deadline - time.monotonic())
    heard = {key.data for key, _ in self._selector.select(timeout)}
    now = time.monotonic()
    for worker in list(self._workers):
      if worker in heard:
        failure = self._listen(worker, on_verdict)
      else:
        failure = TIMEOUT.reason if worker.deadline < now else None
        self._start_follower(worker, now)
      if failure:
        self._remove(worker)
        on_failure(worker, failure)

  def _listen(
    self,
    worker: WorkerProcess,
    on_verdict: Callable[[WorkerProcess, Any], None],
  ) -> str | None:
    """Takes a worker's messages; says why where it can serve no longer."""
    try:
      messages = worker.receive()
      if messages is None:
        return (TIMEOUT if worker.timed_out() else CRASHED).reason
      for message in messages:
        if worker.ready:
          on_verdict(worker, message)
        elif message:
          return message  # It could not import the verifier.
        else:
          worker.ready = True
          worker.deadline = math.inf
    except (ValueError, TypeError, LookupError):
      return CRASHED.reason  # Something else wrote into its reply.
    return None

  def _await_ready(self) -> None:
    def on_failure(worker: WorkerProcess, reason: str) -> None:
      del worker
      if reason not in (TIMEOUT.reason, CRASHED.reason):
        raise ValueError(reason)
      raise ValueError(
        f'rewards.verifier: a worker ended ({reason}) while it imported '
        f'{self._settings["terms"]}; it may take {process.START_LIMIT_S:g} s'
        f' and {self._settings["memory_limit_bytes"] >> 20} MiB.'
      )

    while not all(worker.ready for worker in self._workers):
      self._wait(lambda worker, message: None, on_failure)

  def _start_missing(self) -> None:
    while len(self._workers) < self._num_workers:
      self._start()

  def _start(self) -> None:
    worker = WorkerProcess(self._settings)
    self._workers.append(worker)
    self._selector.register(worker.replies, selectors.EVENT_READ, worker)

  def _start_follower(self, worker: WorkerProcess, now: float) -> None:
    """Lets what may replace a late worker import its modules meanwhile."""
    if worker.late < now:
      worker.late = math.inf
      if len(self._workers) < 2 * self._num_workers:
        self._start()

  def _remove(self, worker: WorkerProcess) -> None:
    self._selector.unregister(worker.replies)
    self._workers.remove(worker)
    worker.stop()

  def _stop_all(self) -> None:
    for worker in list(self._workers):
      self._remove(worker)
