"""Messages between the processes of a job, besides arrays.

Texts go through the key-value store of JAX's coordination service, and bytes
of every step through the devices. With one process every function here is
what it says, done alone, at no cost.
"""

from collections.abc import Callable, Sequence
import itertools
import json
import threading
import time
from typing import Any

import jax
from jax._src import distributed as _jax_distributed
from jax.experimental import multihost_utils
import numpy as np

_HOST = 'dppo_jax/host'
_FAILURE = 'dppo_jax/failure'
_LEFT = 'dppo_jax/left'
_PULSE = 'dppo_jax/pulse'
_MAX_TEXT = 4000
_GONE_S = 5.0

_limit_s = 300
_counter = itertools.count()
_leaving = threading.Event()


def is_single_process() -> bool:
  """Whether this is the only process."""
  return jax.process_count() == 1


def is_primary() -> bool:
  """Whether this process is the one that writes."""
  return jax.process_index() == 0


def _client() -> Any:
  client = _jax_distributed.global_state.client
  if client is None:
    raise ValueError(
      'processes: the coordination service is not there; start the job with'
      ' distributed.start.'
    )
  return client


def introduce(host: str, time_limit_s: int) -> None:
  """Tells the others the name of this host, and takes the time limit."""
  global _limit_s
  _limit_s = time_limit_s
  _client().key_value_set(f'{_HOST}/{jax.process_index()}', host)


def name(process: int) -> str:
  """'process 1 (host b)'."""
  host = _read(f'{_HOST}/{process}')
  return f'process {process}' + (f' ({host})' if host else '')


def barrier(what: str, time_limit_s: float | None = None) -> None:
  """Waits until every process has come.

  Args:
    what: what they come to; the same everywhere.
    time_limit_s: seconds; None is that of the job.

  Raises:
    ValueError: some have not come in time; names them.
  """
  if is_single_process():
    return
  limit = _limit_s if time_limit_s is None else time_limit_s
  key = f'dppo_jax/barrier/{what}'
  client = _client()
  client.key_value_set(f'{key}/{jax.process_index()}', 'here', True)
  try:
    client.wait_at_barrier(key, int(1000 * limit))
  except jax.errors.JaxRuntimeError as error:
    missing = ', '.join(name(process) for process in _missing(key))
    raise ValueError(
      f'processes: {missing or "another process"} did not come to {what!r}'
      f' within {limit:g} s. Look at its own output; it has stopped, hangs, or'
      ' was never started (--host_time_limit_s).'
    ) from error


def await_end() -> None:
  """Waits until every process is about to end, or the limit of the job."""
  try:
    barrier('the end')
  except (ValueError, jax.errors.JaxRuntimeError):
    return  # Each of them was told, or will be by JAX's runtime.


def _missing(key: str) -> list[int]:
  came = {
    int(path.rpartition('/')[2]) for path, _ in _client().key_value_dir_get(key)
  }
  return [p for p in range(jax.process_count()) if p not in came]


def from_primary(make: Callable[[], Any], what: str) -> Any:
  """Calls `make` on process 0 and returns its value everywhere.

  Args:
    make: returns what JSON can hold.
    what: is done, for messages.

  Raises:
    ValueError: on every process, if `make` raised ValueError or OSError.
  """
  if is_single_process():
    return make()
  key = f'dppo_jax/first/{next(_counter)}'
  if is_primary():
    try:
      answer = {'value': make()}
    except (ValueError, OSError) as error:
      answer = {'error': str(error)}
    _client().key_value_set(key, json.dumps(answer))
  answer = json.loads(_wait_for(key, what))
  if 'error' in answer:
    raise ValueError(answer['error'])
  return answer['value']


def _wait_for(key: str, what: str) -> str:
  try:
    return _client().blocking_key_value_get(key, int(1000 * _limit_s))
  except jax.errors.JaxRuntimeError as error:
    raise ValueError(
      f'processes: {name(0)} did not come to {what!r} within {_limit_s} s.'
    ) from error


def compare(
  facts: Any, differences: Callable[[Any, Any], Sequence[str]], what: str
) -> None:
  """Checks that every process has the same facts.

  Args:
    facts: of this process, as JSON can hold them.
    differences: (those of process 0, those of another) -> lines.
    what: is compared, for messages.

  Raises:
    ValueError: on every process, naming the first that differs.
  """
  if is_single_process():
    return
  key = f'dppo_jax/facts/{next(_counter)}'
  text = json.dumps(facts, sort_keys=True, default=str)
  _client().key_value_set(f'{key}/{jax.process_index()}', text)

  def verdict() -> str:
    mine = json.loads(text)
    for process in range(1, jax.process_count()):
      theirs = json.loads(_wait_for(f'{key}/{process}', what))
      lines = list(differences(mine, theirs))
      if lines:
        listed = '\n'.join(f'  {line}' for line in lines[:8])
        return (
          f'{what}: {name(process)} differs from {name(0)}:\n{listed}\n'
          'Start every process with the same command and the same code.'
        )
    return ''

  found = from_primary(verdict, what)
  if found:
    raise ValueError(found)


def first_problem(problem: str) -> str:
  """The problem of the lowest process that has one; '' if none has."""
  if is_single_process():
    return problem
  found = gather(problem.encode())
  for process, text in enumerate(found):
    if text:
      return f'{name(process)}: {text.decode()}'
  return ''


def gather(mine: bytes) -> list[bytes]:
  """The bytes of every process, in their order; a collective."""
  if is_single_process():
    return [mine]
  sizes = np.ravel(multihost_utils.process_allgather(np.int32(len(mine))))
  # Powers of two: few programs.
  width = 1 << max(6, (int(sizes.max()) - 1).bit_length())
  padded = np.zeros(width, np.uint8)
  padded[: len(mine)] = np.frombuffer(mine, np.uint8)
  rows = np.asarray(multihost_utils.process_allgather(padded))
  return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]


def largest(number: int) -> int:
  """The largest of the processes' numbers; a collective."""
  if is_single_process():
    return number
  return int(np.max(multihost_utils.process_allgather(np.int32(number))))


class Pulse:
  """Tells the others that this process lives, and sees who no longer does.

  JAX's service notices, too, and then aborts every process at once; this one
  comes first and says which host it was. Process 0 watches all, and they it.
  """

  def __init__(
    self,
    time_limit_s: float,
    clock: Callable[[], float] = time.monotonic,
  ):
    self._time_limit_s = time_limit_s
    self._clock = clock
    self._num_beats = 0
    self._changes: dict[int, tuple[str, float]] = {}

  def look(self) -> str:
    """Beats once; returns who has been silent for too long, or ''."""
    self._num_beats += 1
    now, beat = self._clock(), str(self._num_beats)
    mine = f'{_PULSE}/{jax.process_index()}'
    _quietly(lambda: _client().key_value_set(mine, beat, True))
    for process in self._watched():
      last = _read(f'{_PULSE}/{process}') or ''
      before, since = self._changes.get(process, (None, now))
      if last != before:
        self._changes[process] = (last, now)
      elif now - since > self._time_limit_s:
        return (
          f'{name(process)} has been silent for {self._time_limit_s:g} s: it'
          ' was killed, lost its network, or its machine is gone.'
        )
    return ''

  def _watched(self) -> Sequence[int]:
    return range(1, jax.process_count()) if is_primary() else [0]


def report_failure(text: str) -> None:
  """Leaves the cause of a failure with the others; the first one counts."""
  if not _read(_HOST + '/0'):
    return
  line = f'{name(jax.process_index())} failed: {text}'[:_MAX_TEXT]
  publish_failure(line)


def publish_failure(line: str) -> None:
  """Leaves a line about any process with all of them; the first counts."""
  _leaving.set()
  _quietly(lambda: _client().key_value_set(_FAILURE, line))


def read_failure() -> str | None:
  """The cause of the first failure of any process, if there is one."""
  return _read(_FAILURE)


def leaving() -> bool:
  """Whether this process ends already."""
  return _leaving.is_set()


def take_leave() -> None:
  """Says that this process needs the service no longer."""
  _leaving.set()
  key = f'{_LEFT}/{jax.process_index()}'
  _quietly(lambda: _client().key_value_set(key, 'left', True))


def await_leaves(time_limit_s: float) -> None:
  """Waits until the other processes took their leave, or the limit."""
  deadline = time.monotonic() + time_limit_s
  while time.monotonic() < deadline:
    if not _quietly(lambda: _missing(_LEFT)):
      return
    time.sleep(0.1)


def find_cause() -> str:
  """Why a collective broke: a failure that was told, or who is gone; or ''."""
  deadline = time.monotonic() + _GONE_S / 2
  while time.monotonic() < deadline:
    cause = read_failure()
    if cause is not None:
      return cause
    time.sleep(0.1)
  try:
    barrier('a look round after an error', _GONE_S)
  except (ValueError, jax.errors.JaxRuntimeError) as error:
    return str(error)
  return ''


def _read(key: str) -> str | None:
  return _quietly(lambda: _client().key_value_try_get(key))


def _quietly(call: Callable[[], Any]) -> Any:
  """None where the service has no answer, or is gone."""
  if _jax_distributed.global_state.client is None:  # At the very end.
    return None
  try:
    return call()
  except jax.errors.JaxRuntimeError:
    return None
