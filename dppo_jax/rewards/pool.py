"""Pool of verifier processes: no verifier can crash or stall a run.

If a verifier raises, hangs, exits, exhausts memory or returns a malformed
verdict, that item gets reward 0 and the reason; all others are still verified.

The limit per item is on the CPU time of its worker, which ends itself by a
timer, so host load does not change a verdict. A generous wall-clock limit, kept
here, catches verifiers that wait without computing.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
import math
import selectors
import time
from typing import TYPE_CHECKING, Any, Self

from dppo_jax.rewards import process, verifiers
from dppo_jax.rewards.answers.extraction import parse_extraction
from dppo_jax.rewards.limits import check_limits
from dppo_jax.rewards.output import CappedOutput
from dppo_jax.rewards.process import WorkerProcess
from dppo_jax.rewards.terms import Term, combine, parse_terms
from dppo_jax.rewards.verdicts import CRASHED, TIMEOUT, Verdict, verify_safely

if TYPE_CHECKING:  # It imports JAX, which a verifier process must not.
  from dppo_jax.base import Verifier

CHUNK_SIZE = 32  # Items sent at once, at most.
_MAX_LOST = 8  # Workers that a batch may lose before they begin.


def _name(verifier: 'Verifier') -> str:
  """'module:function', the name by which a worker imports a function."""
  module = getattr(verifier, '__module__', None)
  qualified = getattr(verifier, '__qualname__', '<locals>')
  if module in (None, '__main__') or '<' in qualified:
    raise ValueError(
      f'rewards.verifier: {verifier!r} cannot be imported by a worker; '
      'define it at the top of a module other than the main program.'
    )
  return f'{module}:{qualified}'


def parse_verifier(text: str, num_workers: int) -> tuple[Term, ...]:
  """Terms of `rewards.verifier`, a sum of `VERIFIERS` and user functions.

  Raises:
    ValueError: no such sum, or a term needs workers and there are none.
  """
  terms = parse_terms(
    'rewards.verifier', text, verifiers.VERIFIERS, functions=True
  )
  for term in terms:
    row = verifiers.VERIFIERS.get(term.name)
    if num_workers == 0 and (row is None or row.imports):
      kind = 'a user function' if row is None else 'one that may hang'
      raise ValueError(
        f'rewards.num_workers: got 0 for the verifier {term.name!r}; {kind}'
        ' needs at least 1, so that it can be stopped.'
      )
  return terms


class VerifierPool:
  """Verifies completions in worker processes, or in this one.

  Use it as a context manager, or call `close`. Without workers nothing can
  interrupt a verifier, so only those of `VERIFIERS` that cannot hang may run
  that way.

  Attributes:
    terms: the reward, as a weighted sum of verifiers.
    extraction: keys of `EXTRACTORS`, in the order in which they are tried.
    kind: of what the workers call, a key of `worker.KINDS`.
  """

  kind = 'verifier'

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
      verifier: weighted sum of keys of `VERIFIERS` and of
        'package.module:function' (trusted: it is imported), such as
        'math + 0.1 * think_answer'; or a function that a worker can import.
      extraction: keys of `EXTRACTORS` for verifiers that read answers, such as
        'boxed, hashes'; the first that finds an answer counts.
      num_workers: processes; 0 verifies in this one.
      time_limit_s: CPU seconds per item, in a worker.
      memory_limit_mb: MiB of address space per worker.
      wall_limit_s: wall-clock seconds per item; at least `time_limit_s`.
      read_thoughts: whether an answer found only inside the reasoning counts.

    Raises:
      ValueError: a bad argument, a verifier that cannot be imported, or one
        that needs workers without any.
    """
    check_limits(num_workers, time_limit_s, wall_limit_s, memory_limit_mb)
    name = verifier if isinstance(verifier, str) else _name(verifier)
    self.terms = self._parse(name, num_workers)
    self.extraction = extractors = parse_extraction(extraction)
    self._in_process: list[Any] = []
    if num_workers == 0:
      self._in_process = [
        self._load(term.name, extractors, read_thoughts) for term in self.terms
      ]
    self._settings = {
      'kind': self.kind,
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
    self._output = CappedOutput()
    self._selector = selectors.DefaultSelector()
    try:
      self._start_missing()
      self._await_ready()
    except BaseException:
      self.close()
      raise

  def _parse(self, name: str, num_workers: int) -> tuple[Term, ...]:
    return parse_verifier(name, num_workers)

  # What a worker calls; a result, as it was sent, and of an ended worker.
  def _load(self, name: str, extractors: Any, read_thoughts: bool) -> Any:
    row = verifiers.VERIFIERS[name]
    return verifiers.make_verifier(row, extractors, read_thoughts=read_thoughts)

  def _answer(self, function: Any, *item: Any) -> Any:
    return verify_safely(function, *item)

  def _result(self, *fields: Any) -> Any:
    return Verdict(*fields)

  def _failure(self, reason: str) -> Any:
    return Verdict(0.0, reason)

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
    """Verdicts of a batch; see `verify_terms`.

    Returns:
      B verdicts, in order: weighted sum of the terms' rewards, reason of the
      first term.
    """
    verdicts = self.verify_terms(completions, examples, truncated)
    return combine(self.terms, verdicts)

  def verify_terms(
    self,
    completions: Sequence[str],
    examples: Sequence[Mapping[str, Any]],
    truncated: Any,
  ) -> list[list[Verdict]]:
    """Verdicts of a batch, per term.

    Args:
      completions: B texts, without the end token.
      examples: B examples.
      truncated: B booleans, whether the completion hit the length limit.

    Returns:
      B verdicts per term, in order; reward 0.0 with 'timeout', 'memory',
      'crashed' or 'error: …' if the verifier failed.

    Raises:
      ValueError: the lengths differ, or the pool is closed.
    """
    if hasattr(truncated, 'tolist'):  # An array of NumPy or JAX.
      truncated = truncated.tolist()
    flags = [bool(flag) for flag in truncated]
    if not len(completions) == len(examples) == len(flags):
      raise ValueError(
        f'{len(completions)} completions, {len(examples)} examples and '
        f'{len(flags)} truncated flags; the lengths must be equal.'
      )
    return self._run(list(zip(completions, examples, flags, strict=True)))

  def _run(self, items: Sequence[Any]) -> list[list[Any]]:
    """Results on the items, in order, for each term."""
    if self._closed:
      raise ValueError('the verifier pool is closed; make a new one.')
    if self._num_workers == 0:
      return [
        [self._answer(function, *item) for item in items]
        for function in self._in_process
      ]
    try:
      found = self._run_in_workers(items)
      return [[each[t] for each in found] for t in range(len(self.terms))]
    except BaseException:
      # Workers that are part-way through would reply to the next batch.
      self._stop_all()
      raise

  def _run_in_workers(self, items: Sequence[Any]) -> list[list[Any]]:
    num_terms = len(self.terms)
    verdicts = [[self._failure(CRASHED.reason)] * num_terms] * len(items)
    todo = collections.deque(range(len(items)))
    num_lost = 0

    def on_verdict(worker: WorkerProcess, message: Any) -> None:
      index, found = message
      if len(found) != num_terms:
        raise ValueError(f'{len(found)} verdicts on an item.')
      if index != worker.pending[0]:
        raise ValueError(f'a verdict on item {index}, which is not the next.')
      verdicts[worker.answered()] = [self._result(*each) for each in found]

    def on_failure(worker: WorkerProcess, reason: str) -> None:
      nonlocal num_lost
      num_lost += bool(worker.pending) and not worker.begun
      if not worker.begun and num_lost <= _MAX_LOST:
        # Killed or stopped from outside before it saw an item.
        todo.extendleft(reversed(worker.pending))
      elif worker.pending:
        failure = [self._failure(reason)] * num_terms
        verdicts[worker.pending.popleft()] = failure
        todo.extend(worker.pending)
      if worker.ready:  # Else it failed to start, and would again.
        self._start_missing()

    for worker in list(self._workers):
      if worker.has_ended():  # Died idle: no item is at fault.
        self._remove(worker)
    self._start_missing()
    while todo or any(worker.pending for worker in self._workers):
      for worker in self._workers:
        if worker.ready and not worker.pending and todo:
          # A small share of the rest: a hanging item delays few others.
          size = min(CHUNK_SIZE, -(-len(todo) // (4 * self._num_workers)))
          worker.send([todo.popleft() for _ in range(size)], items)
          self._await_room(worker)
      if not self._workers:
        break  # No worker can start: the remaining items count as crashed.
      self._wait(on_verdict, on_failure)
    return verdicts

  def _wait(
    self,
    on_verdict: Callable[[WorkerProcess, Any], None],
    on_failure: Callable[[WorkerProcess, str], None],
  ) -> None:
    """Handles the next messages of the workers, and their timeouts."""
    deadline = min(min(w.deadline, w.late) for w in self._workers)
    timeout = None
    if math.isfinite(deadline):
      timeout = max(0.0, deadline - time.monotonic())
    heard: dict[WorkerProcess, set[str]] = collections.defaultdict(set)
    for key, _ in self._selector.select(timeout):
      worker, what = key.data
      heard[worker].add(what)
    for worker in list(self._workers):
      failure = self._attend(worker, heard[worker], on_verdict)
      if failure:
        self._remove(worker)
        on_failure(worker, failure)

  def _attend(
    self,
    worker: WorkerProcess,
    heard: set[str],
    on_verdict: Callable[[WorkerProcess, Any], None],
  ) -> str | None:
    """Does what a worker's descriptors ask for; why it can serve no longer."""
    failure = None
    if 'output' in heard:
      self._copy_output(worker)
    if 'requests' in heard and worker.write_some():
      self._selector.unregister(worker.requests)
    if 'replies' in heard:
      failure = self._listen(worker, on_verdict)
    elif 'end' in heard:  # All is read; a child of it may hold the pipe.
      failure = self._end_of(worker)
    now = time.monotonic()
    # Also of one that is heard: it may say anything but verdicts.
    if failure is None and worker.deadline < now:
      failure = TIMEOUT.reason
    if failure is None:
      self._start_follower(worker, now)
    return failure

  def _end_of(self, worker: WorkerProcess) -> str:
    return (TIMEOUT if worker.timed_out() else CRASHED).reason

  def _copy_output(self, worker: WorkerProcess) -> None:
    found = worker.read_output()
    if found is None:
      self._selector.unregister(worker.output)
    else:
      self._output.copy(found)

  def _listen(
    self,
    worker: WorkerProcess,
    on_verdict: Callable[[WorkerProcess, Any], None],
  ) -> str | None:
    """Reason why a worker must be removed, after its messages; else None."""
    try:
      messages = worker.receive()
      if messages is None:
        return self._end_of(worker)
      for message in messages:
        if worker.ready and message is process.BEGUN:
          worker.begun = True
        elif worker.ready:
          on_verdict(worker, message)
        elif message:
          return message  # The verifier failed to import.
        else:
          worker.ready = True
          worker.deadline = math.inf
    except (ValueError, TypeError, LookupError):
      return CRASHED.reason  # Its reply is corrupted.
    return None

  def _await_ready(self) -> None:
    def on_failure(worker: WorkerProcess, reason: str) -> None:
      del worker
      if reason not in (TIMEOUT.reason, CRASHED.reason):
        raise ValueError(reason)
      raise ValueError(
        f'rewards.verifier: a worker ended ({reason}) while it imported '
        f'{self._settings["terms"]}; the limits are {process.START_LIMIT_S:g} s'
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
    for name in ('replies', 'output', 'end'):
      if name != 'end' or worker.end >= 0:
        readable = getattr(worker, name)
        self._selector.register(readable, selectors.EVENT_READ, (worker, name))
    self._await_room(worker)

  def _await_room(self, worker: WorkerProcess) -> None:
    """Has what its pipe did not take written once there is room."""
    if not worker.write_some():
      self._selector.register(
        worker.requests, selectors.EVENT_WRITE, (worker, 'requests')
      )

  def _start_follower(self, worker: WorkerProcess, now: float) -> None:
    """Starts a spare worker when one is late, so that its imports overlap."""
    if worker.late < now:
      worker.late = math.inf
      if len(self._workers) < 2 * self._num_workers:
        self._start()

  def _remove(self, worker: WorkerProcess) -> None:
    for key in list(self._selector.get_map().values()):
      if key.data[0] is worker:
        self._selector.unregister(key.fileobj)
    self._workers.remove(worker)
    worker.stop()

  def _stop_all(self) -> None:
    for worker in list(self._workers):
      self._remove(worker)
