"""Worker process that runs verifiers or an environment for a pool.

Started as `python -m dppo_jax.rewards.worker` with one JSON line of settings;
then each input line is a chunk of items, and each output line the verdicts on
one item, one per term. JSON, not pickle: a verifier's result is data to the
parent, never code.
"""

from collections.abc import Callable, Iterable, Sequence
import contextlib
import importlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, cast

from dppo_jax import reasoning_tasks
from dppo_jax.rewards import descendants, verifiers
from dppo_jax.rewards.environments import table
from dppo_jax.rewards.environments.replies import reply_safely
from dppo_jax.rewards.verdicts import verify_safely

if TYPE_CHECKING:  # It imports JAX, which a verifier process must not.
  from dppo_jax.base import Environment, Verifier

# An orphaned worker that waits is ended by its own timer, this many seconds
# after the parent would have ended it.
_GRACE_S = 5.0
# The first formula that a process parses takes as long as ten later ones, so
# one is parsed before the first item, outside its time limit.
_FIRST_ITEM = ('\\boxed{\\frac{x}{2}, [1, 2)}', {'answer': '[1,2),x/2'}, False)


def load_verifier(
  name: str, extraction: Sequence[str], *, read_thoughts: bool = False
) -> 'Verifier':
  """Verifier of the given name.

  Args:
    name: a key of `VERIFIERS`, or 'package.module:function'.
    extraction: keys of `EXTRACTORS`, for verifiers that read answers.
    read_thoughts: whether an answer found only inside the reasoning counts.

  Raises:
    ValueError: no such module or function, or a library is missing.
  """
  if name in verifiers.VERIFIERS:
    row = verifiers.VERIFIERS[name]
    if row.imports:  # Now, outside the time limit of the first item.
      try:
        importlib.import_module(row.imports)
      except ImportError as error:
        raise ValueError(
          f'rewards.verifier: {name!r} needs {row.imports!r} ({error}).'
        ) from error
      verify_safely(verifiers.make_verifier(row, ('boxed',)), *_FIRST_ITEM)
    return verifiers.make_verifier(row, extraction, read_thoughts=read_thoughts)
  return cast('Verifier', import_function('rewards.verifier', name))


def load_environment(
  name: str, extraction: Sequence[str], *, read_thoughts: bool = False
) -> 'Environment':
  """Environment of the given name; the other arguments are of verifiers.

  Raises:
    ValueError: no such module or function.
  """
  del extraction, read_thoughts
  if name in table.LIBRARY:  # Now, outside the time limit of the first item.
    reasoning_tasks.library()
  if name in table.ENVIRONMENTS:
    return table.ENVIRONMENTS[name]
  return cast('Environment', import_function('environment.name', name))


class Kind(NamedTuple):
  """One kind of function that a worker calls.

  Attributes:
    load: (name, extraction, read_thoughts) -> the function.
    answer: (function, *item) -> its result as a tuple, whatever it raises.
  """

  load: Callable[..., Any]
  answer: Callable[..., Any]


KINDS = {
  'verifier': Kind(load_verifier, verify_safely),
  'environment': Kind(load_environment, reply_safely),
}


def import_function(path: str, name: str) -> Any:
  """The callable that 'package.module:function' names.

  Args:
    path: config path, for messages.
    name: of the function.

  Raises:
    ValueError: no such module or function.
  """
  module_name, _, function = name.partition(':')
  try:
    found: Any = importlib.import_module(module_name)
    for part in function.split('.'):
      found = getattr(found, part)
  except Exception as error:  # A module may raise anything when imported.
    raise ValueError(
      f'{path}: cannot import {name!r} ({type(error).__name__}: {error}).'
    ) from error
  if not callable(found):
    raise ValueError(f'{path}: {name!r} is not callable.')
  return found


def limit_memory(num_bytes: int) -> None:
  """Limits the address space of this process, where the system supports it."""
  # Elsewhere only the time limit applies.
  with contextlib.suppress(ImportError, ValueError, OSError):
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))


def unblock_timers() -> None:
  """Makes the two timers of `serve` end this process, whatever it inherited."""
  timers = (signal.SIGPROF, signal.SIGALRM)
  for timer in timers:  # A parent may have ignored or blocked them.
    signal.signal(timer, signal.SIG_DFL)
  signal.pthread_sigmask(signal.SIG_UNBLOCK, timers)


def serve(
  requests: Iterable[str],
  replies: TextIO,
  terms: Sequence[Any],
  time_limit_s: float,
  wall_limit_s: float,
  answer: Callable[..., Any] = verify_safely,
) -> None:
  """Answers chunks of items until the requests end.

  Args:
    requests: JSON lines, lists of [index, *item], as [index, completion,
      example, truncated].
    replies: receives 'true' per chunk, once it has been read, and one JSON line
      [index, [result, …]] per item, in order, as [index, [[reward, reason]]].
    terms: functions to call, one after the other.
    time_limit_s: CPU seconds per item, user and system; SIGPROF then ends the
      process, whatever code is running.
    wall_limit_s: wall-clock seconds per item; SIGALRM ends the process
      `_GRACE_S` later.
    answer: of their `Kind`.
  """
  process = os.getpid()
  for line in requests:
    replies.write('true\n')  # `process.BEGUN`: from here on items are at fault.
    replies.flush()
    for index, *item in json.loads(line):
      signal.setitimer(signal.ITIMER_REAL, wall_limit_s + _GRACE_S)
      signal.setitimer(signal.ITIMER_PROF, time_limit_s)
      results = [answer(term, *item) for term in terms]
      if os.getpid() != process:
        os._exit(0)  # A verifier forked and both came back: one may answer.
      signal.setitimer(signal.ITIMER_PROF, 0.0)
      signal.setitimer(signal.ITIMER_REAL, 0.0)
      replies.write(json.dumps([index, results]) + '\n')
      replies.flush()


def main() -> None:
  """Serves on the standard streams; what a verifier prints goes to stderr."""
  descendants.start_guard(0)
  requests = os.fdopen(os.dup(0), encoding='utf-8')
  replies = os.fdopen(os.dup(1), 'w', encoding='utf-8')
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  os.dup2(2, 1)
  settings = json.loads(requests.readline())
  unblock_timers()
  limit_memory(settings['memory_limit_bytes'])
  kind = KINDS[settings['kind']]
  try:
    terms = [
      kind.load(
        name,
        settings['extraction'],
        read_thoughts=settings['read_thoughts'],
      )
      for name in settings['terms']
    ]
  except ValueError as error:
    replies.write(json.dumps(str(error)) + '\n')
    replies.flush()
    return
  replies.write(json.dumps('') + '\n')  # Ready.
  replies.flush()
  limits = settings['time_limit_s'], settings['wall_limit_s']
  serve(requests, replies, terms, *limits, kind.answer)


if __name__ == '__main__':
  sys.exit(main())
