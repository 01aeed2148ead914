"""Tasks of the library reasoning-gym: named in a config, opened, scored.

Item i of a task is a function of its name, its parameters and i, wherever it
is drawn: a verifier process draws the item again and so scores the library's
own entry, whose metadata JSON could not carry. Items of some tasks follow the
order of Python sets; the processes that draw and score share a hash seed.

The library is imported when a task is first opened. Worker processes import
this module, so it needs the standard library only.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import enum
import functools
import importlib
import json
import math
from typing import Any, NamedTuple

from dppo_jax.suggestions import suggest

SOURCE = 'reasoning_gym'  # Of data.source.
HASH_SEED = '0'  # PYTHONHASHSEED of every process that draws or scores.
# Items of a task, at most: one of the tasks allows no more, and some choose
# their items by this number, so that it must not depend on a run.
SIZE = 20_000
_SEED = 0  # Item i is drawn with seed 0 + i.
LEVEL = 'level'  # Parameter for the level of a task's curriculum.
_RESERVED = {
  'seed': 'order prompts by `seed`',
  'size': 'set data.num_items',
}
_EXTRA = "pip install 'dppo_jax[environments]'"

# Task -> why no run can learn from it.
REFUSED: Mapping[str, str] = {
  'acre': 'it makes all of its items when it is opened, for half a minute',
  'codeio': 'some of its items are drawn without a seed',
  'composite': 'it mixes other tasks; name those in data.tasks',
  'game_of_life_halting': 'its scorer pays any text in full',
  'list_functions': 'some of its items are drawn without a seed',
}
# Tasks whose items follow the hash seed: they are the same in every run, since
# that seed is fixed, and would be others in a process without it.
HASHED = frozenset(
  {
    'isomorphic_strings',
    'knight_swap',
    'polynomial_multiplication',
    'ransom_note',
    'word_ladder',
  }
)


class Task(NamedTuple):
  """One entry of data.tasks.

  Attributes:
    name: of the task.
    weight: share of the prompts, relative to the others; above 0.
    parameters: of the task's config; 'level' is that of its curriculum.
  """

  name: str
  weight: float
  parameters: Mapping[str, Any]

  @property
  def label(self) -> str:
    """Name, and the level where there is one: 'chain_sum_level2'."""
    if LEVEL in self.parameters:
      return f'{self.name}_{LEVEL}{self.parameters[LEVEL]}'
    return self.name


def parse(entries: Sequence[Any]) -> tuple[Task, ...]:
  """Entries of data.tasks: a name, or (name, weight[, parameters]).

  >>> parse(['gcd', ('chain_sum', 2, (('max_terms', 3),))])[1].parameters
  {'max_terms': 3}

  Raises:
    ValueError: an entry has another shape.
  """
  return tuple(map(_task, entries))


def _task(entry: Any) -> Task:
  if isinstance(entry, str):
    return Task(entry, 1.0, {})
  if isinstance(entry, (list, tuple)) and len(entry) in (2, 3):
    name, weight = entry[:2]
    parameters = _pairs(entry[2] if len(entry) == 3 else ())
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if isinstance(name, str) and number and parameters is not None:
      return Task(name, float(weight), parameters)
  raise ValueError(
    f"data.tasks: got {entry!r}; an entry is a name, 'chain_sum', or (name,"
    " weight), or has parameters, too: ('chain_sum', 1.0, (('max_terms', 3),))."
  )


def _pairs(value: Any) -> dict[str, Any] | None:
  """Dict of a mapping or of (name, value) pairs; None of anything else."""
  pairs = list(value.items()) if isinstance(value, Mapping) else value
  if not isinstance(pairs, (list, tuple)):
    return None
  for pair in pairs:
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
      return None
    if not isinstance(pair[0], str):
      return None
  return {name: _plain(each) for name, each in pairs}


def _plain(value: Any) -> Any:
  """JSON form: lists, not tuples."""
  if isinstance(value, (list, tuple)):
    return [_plain(each) for each in value]
  return value


def find_problems(entries: Sequence[Any]) -> Iterator[str]:
  """Sentences on data.tasks, 'path: what was got, what is allowed'.

  Args:
    entries: of data.tasks, at least one of which is needed.
  """
  if not entries:
    yield (
      "data.tasks: empty; name tasks of reasoning-gym, as ('chain_sum',)."
      ' `python -m experiments.tasks` lists them.'
    )
  seen: list[tuple[str, Mapping[str, Any]]] = []
  for entry in entries:
    try:
      task = _task(entry)
      if not 0 < task.weight < math.inf:
        yield (
          f'data.tasks: weight {task.weight:g} of {task.name!r}; a number'
          ' above 0.'
        )
      if (task.name, task.parameters) in seen:
        yield f'data.tasks: {task.name!r} occurs twice; add its weights up.'
      seen.append((task.name, task.parameters))
      if task.name in REFUSED:
        yield f'data.tasks: {task.name!r} is refused: {REFUSED[task.name]}.'
        continue
      configure(task.name, task.parameters)
    except ValueError as error:
      yield str(error)


def library() -> Any:
  """Module with the tables of the library's tasks.

  Raises:
    ValueError: it is not installed, or cannot be imported.
  """
  try:
    importlib.import_module('reasoning_gym')
    return importlib.import_module('reasoning_gym.factory')
  except ImportError as error:
    raise ValueError(
      f'data.source: {SOURCE!r} needs the library reasoning-gym ({error}):'
      f' {_EXTRA}'
    ) from error


def version() -> str:
  """Version of the installed library, whose own `__version__` lags behind."""
  library()
  metadata: Any = importlib.import_module('importlib.metadata')
  try:
    return metadata.version('reasoning-gym')
  except metadata.PackageNotFoundError:
    return str(importlib.import_module('reasoning_gym').__version__)


def names() -> list[str]:
  """Names of the tasks that a run may use."""
  return sorted(set(library().DATASETS) - set(REFUSED))


def configure(name: str, parameters: Mapping[str, Any]) -> Any:
  """Config of a task, an object of the library's.

  Args:
    name: of the task.
    parameters: of its config; 'level' sets all of them that the task's
      curriculum knows, and others replace those.

  Raises:
    ValueError: no such task, no such parameter, or a value that the task does
      not take.
  """
  tables = library()
  if name not in tables.DATASETS:
    raise ValueError(f'data.tasks: unknown {name!r}{suggest(name, names())}')
  kind = tables.DATASETS[name][1]
  own = {field.name for field in dataclasses.fields(kind)} - set(_RESERVED)
  for key in parameters:
    if key in _RESERVED:
      raise ValueError(
        f'data.tasks: {key!r} of {name!r} is set by this package;'
        f' {_RESERVED[key]}.'
      )
    if key not in own and key != LEVEL:
      known = suggest(key, [*sorted(own), LEVEL])
      raise ValueError(
        f'data.tasks: unknown parameter {key!r} of {name!r}{known}'
      )
  fixed = {'seed': _SEED, 'size': SIZE}
  rest = dict(parameters)
  try:
    config = (
      _at_level(tables, name, rest.pop(LEVEL), fixed)
      if LEVEL in rest
      else kind(**fixed)
    )
    changes = {
      key: _convert(name, key, value, getattr(config, key))
      for key, value in rest.items()
    }
    config = dataclasses.replace(config, **changes)
    if hasattr(config, 'validate'):
      config.validate()
  except (AssertionError, TypeError, KeyError) as error:
    raise ValueError(
      f'data.tasks: {name!r} does not take {dict(parameters)}: {error}.'
    ) from error
  return config


def num_levels(name: str) -> int:
  """Levels of a task's curriculum; 0 if it has none."""
  curriculum = library().CURRICULA.get(name)
  if curriculum is None:
    return 0
  return max(len(each.levels) for each in curriculum().attributes.values())


def _at_level(
  tables: Any, name: str, level: Any, fixed: Mapping[str, Any]
) -> Any:
  """Config of a level, which includes the easier ones."""
  count = num_levels(name)
  whole = isinstance(level, int) and not isinstance(level, bool)
  if not whole or not 0 <= level < count:
    allowed = f'0 to {count - 1}' if count else 'none: it has no curriculum'
    raise ValueError(f'data.tasks: level {level!r} of {name!r}; {allowed}.')
  curriculum = tables.CURRICULA[name]()
  curriculum.set_global_level(level)
  return curriculum.generate_configuration(dict(fixed))


def _convert(name: str, key: str, value: Any, default: Any) -> Any:
  """A value in the type of the parameter's default."""
  if isinstance(default, enum.Enum):
    kind: Any = type(default)
    known = [each.value for each in kind]
    if value not in known:
      raise ValueError(
        f'data.tasks: {key!r} of {name!r} is {value!r}'
        f'{suggest(str(value), known)}'
      )
    return kind(value)
  if isinstance(default, tuple) and isinstance(value, list):
    return tuple(value)
  if isinstance(default, float) and isinstance(value, int):
    value = value if isinstance(value, bool) else float(value)
  plain = (bool, int, float, str, list, tuple, type(None))
  same = default is None or type(value) is type(default)
  if not isinstance(default, plain) or not same:
    raise ValueError(
      f'data.tasks: {key!r} of {name!r} is {value!r}; its default is'
      f' {default!r}, and a config can set numbers, texts and lists, of the'
      ' same type.'
    )
  return value


def open_task(name: str, parameters: Mapping[str, Any]) -> Any:
  """Data set of a task, an object of the library's; opened once a process.

  Raises:
    ValueError: as of `configure`.
  """
  return _open(name, json.dumps(dict(parameters), sort_keys=True))


@functools.lru_cache(maxsize=64)
def _open(name: str, parameters: str) -> Any:
  config = configure(name, json.loads(parameters))
  return library().DATASETS[name][0](config)


@functools.lru_cache(maxsize=256)
def _entry(name: str, parameters: str, item: int) -> Any:
  """Entry of an item; completions of one prompt are scored one by one."""
  return _open(name, parameters)[item]


def score(answer: str, example: Mapping[str, Any]) -> float:
  """Score of an answer by the library's scorer of the task, mostly in [0, 1].

  Args:
    answer: stripped here, since some scorers pay less for a newline behind a
      right answer.
    example: with 'prompt', 'task', 'parameters' and 'item'.

  Raises:
    ValueError: the item is drawn with another question here.
  """
  name, item = example['task'], example['item']
  parameters = json.dumps(dict(example['parameters']), sort_keys=True)
  entry = _entry(name, parameters, item)
  if entry['question'] != example['prompt']:
    raise ValueError(f'item {item} of {name!r} has another question here')
  return float(_open(name, parameters).score_answer(answer.strip(), entry))


def find_missing(example: Mapping[str, Any]) -> str | None:
  """Reason why an example cannot be scored; None if it can.

  >>> find_missing({'task': 'gcd', 'parameters': {}, 'item': 3})
  >>> find_missing({'prompt': '1 + 1'})
  "reads the fields 'task', 'parameters' and 'item'"
  """
  if {'task', 'parameters', 'item'} <= example.keys():
    return None
  return "reads the fields 'task', 'parameters' and 'item'"
