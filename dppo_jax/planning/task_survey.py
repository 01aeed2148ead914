"""Survey of reasoning-gym's tasks: which of them a run can learn from.

Each task is drawn in three processes: twice under different hash seeds, and
once backwards. A task whose items differ then, whose own scorer rejects its
stored answers or pays nonsense, has a finding.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import time
from typing import Any

from dppo_jax import reasoning_tasks
from dppo_jax.data import reasoning_items
from dppo_jax.reasoning_tasks import HASHED, REFUSED, Task

_OTHER_HASH_SEED = '1'
_FREE = 0.5  # Mean score of nonsense from which on a task pays any text.

# Findings that make a task unfit, and those that a run copes with.
REFUSE = 'refuse'
CHANGES = 'items change with the order of drawing'
REJECTS = 'rejects its stored answers'
ANY_TEXT = 'pays any text'
FAILS = 'cannot be drawn'
HASH_SEED = 'items follow the hash seed'
NO_ANSWER = 'stores no answer'
SOME_CREDIT = 'pays nonsense a little'
NEWLINE = 'pays less for a newline behind a right answer'

Drawn = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Survey:
  """Outcome for one task.

  Attributes:
    name: of the task.
    findings: name -> share of the items, or other detail, as text.
    seconds: per item after the first, wall clock, to draw and to score it.
    longest: characters of the longest question.
    num_levels: of its curriculum; 0 without one.
  """

  name: str
  findings: Mapping[str, str]
  seconds: float
  longest: int
  num_levels: int

  @property
  def unfit(self) -> list[str]:
    """Findings for which the task should stand in `REFUSED`."""
    unfit = (CHANGES, REJECTS, ANY_TEXT, FAILS)
    return [found for found in self.findings if found in unfit]

  @property
  def unlisted(self) -> list[str]:
    """Findings that the tables of `reasoning_tasks` do not know."""
    found = [] if self.name in REFUSED else self.unfit
    if HASH_SEED in self.findings and self.name not in HASHED:
      found.append(HASH_SEED)
    return found


def find(forward: Drawn, again: Drawn, backward: Drawn) -> dict[str, str]:
  """Findings on the items of one task.

  Args:
    forward: items as drawn by `reasoning_items.draw` as a probe.
    again: under another hash seed.
    backward: from the last to the first.

  Returns:
    Name of a finding -> how many items it is about, or how much.
  """
  found: dict[str, str] = {}
  size = len(forward)
  by_item = {each['item']: each for each in backward}
  changed = sum(each != by_item.get(each['item']) for each in forward)
  if changed:
    found[CHANGES] = f'{changed} of {size}'
  hashed = sum(one != two for one, two in zip(forward, again, strict=True))
  if hashed and not changed:
    found[HASH_SEED] = f'{hashed} of {size}'
  answered = [each for each in forward if each['answer'] is not None]
  if len(answered) < size:
    found[NO_ANSWER] = f'{size - len(answered)} of {size}'
  right = [each for each in answered if _number(each['score']) >= 1.0]
  if len(right) < len(answered):
    found[REJECTS] = f'{len(answered) - len(right)} of {len(answered)}'
  nonsense = sum(_number(each['nonsense']) for each in forward) / max(1, size)
  if nonsense > 0.0:
    found[ANY_TEXT if nonsense >= _FREE else SOME_CREDIT] = f'{nonsense:.2g}'
  less = [each for each in right if _number(each['newline']) < 1.0]
  if less:
    mean = sum(_number(each['newline']) for each in less) / len(less)
    found[NEWLINE] = f'{mean:.2g}'
  return found


def _number(score: float | str) -> float:
  """Score; 0.0 where the scorer raised."""
  return 0.0 if isinstance(score, str) else float(score)


def survey(
  names: Sequence[str],
  num_items: int,
  tell: Callable[[Survey], None],
  note: Callable[[str], None] = lambda text: None,
) -> list[Survey]:
  """Surveys of tasks with their default parameters.

  Args:
    names: of tasks; those of `REFUSED` are surveyed, too.
    num_items: per task.
    tell: receives each survey once it is there.
    note: receives what is being drawn.
  """
  surveys = []
  for name in names:
    note(name)
    surveys.append(_survey(name, num_items))
    tell(surveys[-1])
  return surveys


def _survey(name: str, num_items: int) -> Survey:
  task = Task(name, 1.0, {})

  def draw(**settings: Any) -> Drawn:
    return [*reasoning_items.draw(task, num_items, probe=True, **settings)]

  try:
    forward, begin = [], time.monotonic()
    for each in reasoning_items.draw(task, num_items, probe=True):
      # The first one takes the start of the process, too.
      begin = begin if forward else time.monotonic()
      forward.append(each)
    seconds = time.monotonic() - begin
    again = draw(hash_seed=_OTHER_HASH_SEED)
    found = find(forward, again, draw(reverse=True))
  except ValueError as error:
    return Survey(name, {FAILS: str(error)}, 0.0, 0, 0)
  longest = max(len(each['question']) for each in forward)
  levels = reasoning_tasks.num_levels(name)
  return Survey(name, found, seconds / max(1, num_items - 1), longest, levels)


def describe(found: Survey) -> str:
  """Line about a task."""
  told = '; '.join(f'{name} ({text})' for name, text in found.findings.items())
  verdict = 'ok'
  if found.name in REFUSED:
    verdict = 'refused'
  elif found.unlisted:
    verdict = 'UNFIT' if found.unfit else 'PIN'
  elif found.name in HASHED:
    verdict = 'pinned'
  levels = f'{found.num_levels} levels' if found.num_levels else 'no levels'
  return (
    f'{verdict:<8}{found.name:<26}{found.seconds * 1e3:7.1f} ms'
    f' {found.longest:7,} characters  {levels:<10}  {told}'
  ).rstrip()
