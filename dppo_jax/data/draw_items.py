"""Child process that draws items of a reasoning-gym task, a line each.

`python -m dppo_jax.data.draw_items`, with a line of JSON settings on its
standard input. The library's code runs here, not in the trainer, under a timer
per item, so that a task that hangs ends this process only.
"""

from collections.abc import Callable, Iterator
import contextlib
import json
import os
import signal
import sys
from typing import Any

from dppo_jax import reasoning_tasks

_MEMORY = 8 << 30  # Bytes of address space.
# Draws in a row without a new question, after which a task has no more: at
# least this many, and one for each item found.
_MIN_REPEATED = 100
NONSENSE = 'xyzzy plugh'  # Right in no task.

Write = Callable[[dict[str, Any]], None]


def describe(task: Any, item: int) -> dict[str, Any]:
  """Question and answer of an item, and the score of that answer.

  Args:
    task: data set of the library.
    item: index.

  Returns:
    'item', 'question', 'answer' (None where none is stored) and, if there is
    one, 'score': a number, or the name of what the scorer raised.
  """
  entry = task[item]
  answer = entry['answer']
  found = {'item': item, 'question': entry['question'], 'answer': None}
  if isinstance(answer, str):
    found |= {'answer': answer, 'score': _score(task, answer.strip(), entry)}
  return found


def probe(task: Any, item: int) -> dict[str, Any]:
  """As `describe`, and scores of what should earn nothing, or all.

  Returns:
    Also 'nonsense', the score of a text that is right nowhere, and 'newline',
    that of the stored answer with a newline behind it.
  """
  entry = task[item]
  found = describe(task, item)
  found['nonsense'] = _score(task, NONSENSE, entry)
  if found['answer'] is not None:
    found['newline'] = _score(task, f'{found["answer"].strip()}\n', entry)
  return found


def _score(task: Any, answer: str, entry: Any) -> float | str:
  try:
    return float(task.score_answer(answer, entry))
  except Exception as error:  # A scorer may raise anything.
    return type(error).__name__


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
  """Ends this process after so many seconds, whatever code is running."""
  signal.setitimer(signal.ITIMER_REAL, seconds)
  yield
  signal.setitimer(signal.ITIMER_REAL, 0.0)


def draw(settings: dict[str, Any], write: Write) -> None:
  """Draws items until enough have questions of their own.

  Args:
    settings: 'name', 'parameters', 'num_items' and 'limit_s', seconds per item;
      'probe', to draw items 0 to `num_items` - 1 whatever their questions; and
      'reverse', to begin with the last of these.
    write: receives each item.
  """
  limit_s, wanted = settings['limit_s'], settings['num_items']
  with _limited(limit_s):
    task = reasoning_tasks.open_task(settings['name'], settings['parameters'])
  if settings['probe']:
    order = range(wanted)
    for item in reversed(order) if settings['reverse'] else order:
      with _limited(limit_s):
        write(probe(task, item))
    return
  seen: set[str] = set()
  repeated = 0
  for item in range(reasoning_tasks.SIZE):
    with _limited(limit_s):
      found = describe(task, item)
    repeated = repeated + 1 if found['question'] in seen else 0
    if not repeated:
      seen.add(found['question'])
      write(found)
    if len(seen) >= wanted or repeated >= max(_MIN_REPEATED, len(seen)):
      return


def main() -> None:
  """Draws to the standard output; what a task prints goes to stderr."""
  settings = json.loads(sys.stdin.readline())
  lines = os.fdopen(os.dup(1), 'w', encoding='utf-8')
  os.dup2(2, 1)
  signal.signal(signal.SIGALRM, signal.SIG_DFL)
  signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGALRM,))
  with contextlib.suppress(ImportError, ValueError, OSError):
    import resource  # Not on every system.

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))

  def write(found: dict[str, Any]) -> None:
    lines.write(json.dumps(found) + '\n')
    lines.flush()

  try:
    draw(settings, write)
    write({'end': True})
  except Exception as error:  # A task may raise anything.
    write({'error': f'{type(error).__name__}: {error}'[:300]})


if __name__ == '__main__':
  main()
