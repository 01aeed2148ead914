"""Items of reasoning-gym tasks: drawn in a child process, kept, split by text.

Items of two seeds overlap, since item i is drawn with seed + i. So every run
reads the same items, and the text of a question alone decides its split: no
prompt that is trained on is held out, whatever the task's parameters or level.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

from dppo_jax import base, bounded_json, reasoning_tasks
from dppo_jax.data.sources import Loaded
from dppo_jax.reasoning_tasks import Task

ITEM_LIMIT_S = 60.0  # Wall-clock seconds to draw one item and score its answer.
SPLITS = ('train', 'validation', 'test')
_PARTS = 8  # Of which one each is held out for validation and test.
_FOLDER = 'reasoning_gym'  # Below data.data_dir.
_MAX_LINE = 1 << 20  # Characters of an item.

Note = Callable[[str], None]


class Item(NamedTuple):
  """Item of a task.

  Attributes:
    item: its index.
    question: the prompt.
    answer: stored by the task; None if it stores none.
    score: of that answer, by the task's scorer; an exception's name if it
      raised; None without an answer.
  """

  item: int
  question: str
  answer: str | None
  score: float | str | None

  @property
  def rejected(self) -> bool:
    """Whether there is an answer that its own scorer does not pay in full."""
    full = isinstance(self.score, float) and self.score >= 1.0
    return self.answer is not None and not full


def split_of(question: str) -> str:
  """Split of a question, a function of its text alone.

  >>> split_of('1 + 1 =')
  'train'
  """
  part = hashlib.sha256(question.encode()).digest()[0] % _PARTS
  return ('validation', 'test')[part] if part < 2 else 'train'


def load(
  entries: Sequence[Task],
  split: str,
  num_items: int,
  data_dir: str | os.PathLike[str],
  max_rejected: float,
  note: Note = lambda text: None,
) -> Loaded:
  """Examples of a split of all tasks.

  Args:
    entries: of data.tasks.
    split: one of `SPLITS`.
    num_items: drawn per entry, all splits together.
    data_dir: where drawn items are kept; `~` is the home folder.
    max_rejected: share of a task's stored answers that its own scorer may
      reject; they are left out.
    note: receives what is being drawn.

  Returns:
    Examples with 'task', 'parameters' and 'item', which the verifier reads,
    and of several entries 'component' and 'source'.

  Raises:
    ValueError: items cannot be drawn, too many stored answers are rejected, or
      a task has none in the split.
  """
  examples: dict[str, base.Example] = {}
  notes: list[str] = []
  num_duplicates = num_unanswered = 0
  for component, task in enumerate(entries):
    items = _kept(task, num_items, data_dir, note)
    notes += _check(task, items, num_items, max_rejected)
    before = len(examples)
    for found in items:
      if found.rejected or split_of(found.question) != split:
        continue
      if found.answer is not None and not found.answer.strip():
        num_unanswered += 1  # An empty completion is never right.
        continue
      if found.question in examples:
        num_duplicates += 1
        continue
      examples[found.question] = {
        'example_id': component * reasoning_tasks.SIZE + found.item,
        'prompt': found.question,
        'answer': found.answer or '',
        'task': task.name,
        'parameters': dict(task.parameters),
        'item': found.item,
        **(
          {'component': component, 'source': task.label}
          if len(entries) > 1
          else {}
        ),
      }
    if len(examples) == before:
      raise ValueError(
        f'data.tasks: {task.label!r} has no item of its own in split {split!r},'
        f' of {len(items):,} drawn; raise data.num_items, or give it parameters'
        ' with more items.'
      )
  return Loaded(
    tuple(examples.values()), num_duplicates, 0, num_unanswered, tuple(notes)
  )


def _check(
  task: Task, items: Sequence[Item], num_items: int, max_rejected: float
) -> Iterator[str]:
  """Sentences on a task's items, to report.

  Raises:
    ValueError: more stored answers are rejected than may be.
  """
  if len(items) < num_items:
    yield f'{task.label} has {len(items):,} distinct items, of {num_items:,}'
  answered = [found for found in items if found.answer is not None]
  rejected = [found for found in answered if found.rejected]
  if len(answered) < len(items):
    yield (
      f'{task.label} stores no answer for {len(items) - len(answered):,} items:'
      ' its scorer judges alone, and nothing checks the scorer'
    )
  if not rejected:
    return
  told = (
    f'{task.label}: its own scorer rejects {len(rejected):,} of'
    f' {len(answered):,} stored answers'
  )
  if len(rejected) > max_rejected * len(answered):
    first = rejected[0]
    raise ValueError(
      f'data.max_unverifiable: {told}, such as {first.answer!r} (score'
      f' {first.score}); at most {max_rejected:g} of them may be. Choose other'
      ' tasks or parameters, or raise the limit.'
    )
  yield f'{told}; these items are left out'


def _kept(
  task: Task, num_items: int, data_dir: str | os.PathLike[str], note: Note
) -> list[Item]:
  """Items of a task, drawn once for all runs that share a data_dir."""
  what = [task.name, dict(task.parameters), num_items]
  digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
  folder = pathlib.Path(data_dir).expanduser() / _FOLDER
  path = (
    folder
    / reasoning_tasks.version()
    / f'{task.name}-{digest.hexdigest()[:16]}.jsonl'
  )
  with contextlib.suppress(OSError, ValueError):  # Missing, or damaged.
    return _read(path)
  items = []
  for found in draw(task, num_items):
    items.append(_item(found))
    note(f'{task.label}: {len(items):,} of {num_items:,} items')
  _write(path, items)
  return items


def _item(found: Any) -> Item:
  """Item of a child's line, or of a file's.

  Raises:
    ValueError: it is none.
  """
  if not isinstance(found, dict):
    raise ValueError('an item is an object')
  item, question, answer, score = (
    found.get(key) for key in ('item', 'question', 'answer', 'score')
  )
  if not isinstance(item, int) or not isinstance(question, str):
    raise ValueError('an item has an index and a question')
  answer = answer if isinstance(answer, str) else None
  score = float(score) if isinstance(score, (int, float)) else score
  return Item(item, question, answer, score if answer is not None else None)


def _read(path: pathlib.Path) -> list[Item]:
  lines = bounded_json.read_bytes(path, bounded_json.MAX_BYTES).splitlines()
  return [_item(bounded_json.parse(line)) for line in lines]


def _write(path: pathlib.Path, items: Sequence[Item]) -> None:
  """Writes a whole file or none; two processes write the same."""
  text = ''.join(json.dumps(item._asdict()) + '\n' for item in items)
  if len(text) > bounded_json.MAX_BYTES:
    return
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, 'w', encoding='utf-8') as file:
      file.write(text)
    os.replace(scratch, path)
  except OSError as error:
    raise ValueError(
      f'data.data_dir: cannot write {path.parent} ({error.strerror}); name a'
      ' folder that can be written.'
    ) from error


def draw(
  task: Task,
  num_items: int,
  hash_seed: str = reasoning_tasks.HASH_SEED,
  **settings: bool,
) -> Iterator[Mapping[str, Any]]:
  """Items as a child process draws them.

  Args:
    task: entry of data.tasks.
    num_items: with questions of their own.
    hash_seed: of the child.
    **settings: 'probe' and 'reverse', see `draw_items.draw`.

  Raises:
    ValueError: the task raised, or took longer than `ITEM_LIMIT_S` for an item.
  """
  settings = {'probe': False, 'reverse': False, **settings}
  request = json.dumps(
    {
      'name': task.name,
      'parameters': dict(task.parameters),
      'num_items': num_items,
      'limit_s': ITEM_LIMIT_S,
      **settings,
    }
  )
  with subprocess.Popen(
    [sys.executable, '-P', '-m', 'dppo_jax.data.draw_items'],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
    encoding='utf-8',
    env={
      **os.environ,
      'PYTHONPATH': os.pathsep.join(sys.path),
      'PYTHONHASHSEED': hash_seed,
    },
    start_new_session=True,  # Ctrl-C is the parent's.
  ) as child:
    try:
      yield from _lines(child, request, task)
    finally:
      child.kill()


def _lines(
  child: subprocess.Popen[str], request: str, task: Task
) -> Iterator[Mapping[str, Any]]:
  """Items of a child until it says that there are no more."""
  if child.stdin is None or child.stdout is None:
    raise ValueError('data.tasks: a child process without pipes.')
  with contextlib.suppress(BrokenPipeError):  # It has ended; reading says so.
    child.stdin.write(request + '\n')
    child.stdin.close()
  count = 0
  while line := child.stdout.readline(_MAX_LINE):
    try:
      found = bounded_json.parse(line)
    except ValueError as error:
      raise ValueError(
        f'data.tasks: item {count} of {task.label!r} cannot be read ({error}).'
      ) from error
    if 'end' in found:
      return
    if 'error' in found:
      raise ValueError(
        f'data.tasks: drawing item {count} of {task.label!r} with'
        f' {dict(task.parameters)} failed: {str(found["error"]).rstrip(".")}.'
      )
    count += 1
    yield found
  code = child.wait()
  late = code == -signal.SIGALRM
  why = f'took longer than {ITEM_LIMIT_S:g} s' if late else f'ended ({code})'
  raise ValueError(
    f'data.tasks: drawing item {count} of {task.label!r} with'
    f' {dict(task.parameters)} {why}; choose easier parameters, or another'
    ' task.'
  )
