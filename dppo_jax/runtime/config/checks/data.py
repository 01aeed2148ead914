"""Problems of the sections that say where prompts come from."""

from collections.abc import Iterator
import math
from typing import Any

from dppo_jax import reasoning_tasks, suggestions
from dppo_jax.data import fields, mixture, sources
from dppo_jax.runtime.config import tokenizer

Config = dict[str, Any]

DYNAMIC_SAMPLING = ('off', 'drop', 'resample')
TASK = 'task'  # The source that this package makes itself.
SAME = 'data'  # Of evaluation.source: that of data.source.
LIBRARY = reasoning_tasks.SOURCE  # Draws its items.
SOURCES = (TASK, LIBRARY, *sources.SOURCES)
_FIELDS = ('prompt', 'answer')  # A row must have them.


def find_problems(config: Config) -> list[str]:
  """Sentences as of `validation.find_problems`; reads the tokenizer's files.

  Args:
    config: plain nested dicts, whose names, counts and ranges are fine.
  """
  problems = [
    *_texts(config),
    *_mixture(config),
    *_held_out(config),
    *_tasks(config),
    *_sft(config),
  ]
  if problems:  # A tokenizer cannot be opened with arguments of no shape.
    return problems
  try:
    tokenizer.vocabulary_size(config)
    tokenizer.split_stops(
      tokenizer.open_tokenizer(config['data']),
      config['sampling']['stop_strings'],
    )
  except ValueError as error:
    problems.append(str(error))
  return problems


def find_unknown_sources(config: Config) -> Iterator[str]:
  """Problems of `evaluation.source`, as of `find_problems`."""
  got = config['evaluation']['source']
  if not isinstance(got, str):
    yield f'evaluation.source: got {got!r}; names of sources, as text.'
    return
  names = sources.split_names(got)
  for name in names:
    if name not in (SAME, *SOURCES):
      known = suggestions.suggest(name, [SAME, *SOURCES])
      yield f'evaluation.source: unknown {name!r}{known}'
  if len(names) == 1:
    return
  for name in dict.fromkeys(names):
    if name in (SAME, TASK, LIBRARY, 'rows') or names.count(name) > 1:
      yield (
        f'evaluation.source: got {name!r} in {got!r}; several are sources with'
        ' files of their own, each once.'
      )
  if config['evaluation']['files']:
    yield (
      f'evaluation.files: got {config["evaluation"]["files"]!r} for the sources'
      f' {got!r}; leave it empty and put the files of each into its folder.'
    )


def _texts(config: Config) -> Iterator[str]:
  data = config['data']
  if '{prompt}' not in data['prompt_template']:
    yield (
      f'data.prompt_template: got {data["prompt_template"]!r}; it must hold'
      " '{prompt}', where the problem goes."
    )
  if not data['tokenizer']:
    for key in ('chat_template', 'system_prompt'):
      if data[key]:
        yield (
          f'data.{key}: got {data[key]!r}; chats need the tokenizer of a'
          ' model, and data.tokenizer is empty.'
        )
  for key in _FIELDS:
    if not data['fields'][key]:
      yield f'data.fields.{key}: got {""!r}; name a field of your rows.'
  for section in ('data', 'evaluation'):
    try:
      fields.parse_extra(config[section]['fields']['extra'])
    except ValueError as error:
      yield str(error).replace('data.', f'{section}.', 1)
  try:
    if tokenizer.template_arguments(data) and not data['tokenizer']:
      yield (
        'data.chat_template_arguments: chats need the tokenizer of a model, and'
        ' data.tokenizer is empty.'
      )
  except ValueError as error:
    yield str(error)
  stops = config['sampling']['stop_strings']
  for stop in stops:
    if not isinstance(stop, str) or not stop:
      yield (
        f'sampling.stop_strings: got {stop!r}; texts of at least one character,'
        f' in quotes: {tuple(map(str, stops))!r}.'
      )


def _mixture(config: Config) -> Iterator[str]:
  rows = config['data']['mixture']
  if len(rows) > mixture.BLOCK // 10:
    yield f'data.mixture: {len(rows)} rows; at most {mixture.BLOCK // 10}.'
  for row in rows:
    try:
      ((name, _, weight, own),) = mixture.parse([row])
    except ValueError as error:
      yield str(error)
      continue
    for key in own:
      if key not in sources.FIELDS:
        known = suggestions.suggest(key, list(sources.FIELDS))
        yield f'data.mixture: unknown field {key!r} of {name!r}{known}'
    if name == LIBRARY:
      yield (
        f'data.mixture: {name!r} has weights of its own: set data.source to it,'
        ' and give tasks their weights in data.tasks.'
      )
    elif name not in SOURCES:
      known = suggestions.suggest(name, list(SOURCES))
      yield f'data.mixture: unknown source {name!r}{known}'
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not number or not 0 < weight < math.inf:
      yield f'data.mixture: weight {weight!r} of {name!r}; a number above 0.'


def _held_out(config: Config) -> Iterator[str]:
  data, evaluation = config['data'], config['evaluation']
  name, same = data['source'], evaluation['source'] == SAME
  if data['mixture'] and same:
    yield (
      f'evaluation.source: got {SAME!r}, and data.mixture has no held-out part;'
      ' name a source to evaluate on.'
    )
  elif (
    same
    and name not in (TASK, LIBRARY)
    and not sources.SOURCES[name].splits
    and not evaluation['files']
    and evaluation['split'] != 'train'
  ):
    yield (
      f'evaluation.files: empty, and the source {name!r} has no splits; name a'
      ' held-out file, or an evaluation.source, or set evaluation.split to'
      " 'train' to evaluate on the training prompts."
    )


def _tasks(config: Config) -> Iterator[str]:
  data = config['data']
  held_out = sources.split_names(config['evaluation']['source'])
  if LIBRARY not in (data['source'], *held_out):
    if data['tasks']:
      yield (
        f'data.tasks: got {data["tasks"]!r}, and data.source is'
        f' {data["source"]!r}; set that to {LIBRARY!r}.'
      )
    return
  yield from reasoning_tasks.find_problems(data['tasks'])
  if data['num_items'] > reasoning_tasks.SIZE:
    yield (
      f'data.num_items: got {data["num_items"]}; at most'
      f' {reasoning_tasks.SIZE} of a task.'
    )
  if not data['tokenizer']:
    yield (
      f'data.tokenizer: empty, and the prompts of {LIBRARY!r} are English; name'
      " the folder of a model's tokenizer."
    )


def _sft(config: Config) -> Iterator[str]:
  data = config['data']
  if not config['sft']['num_steps']:
    return
  for key, plain in (
    ('source', TASK),
    ('tokenizer', ''),
    ('mixture', ()),
  ):
    if data[key] not in (plain, []):
      yield (
        f'sft.num_steps: got {config["sft"]["num_steps"]};'
        f' demonstrations are of data.task in its words, and data.{key} is'
        f' {data[key]!r}; set it to 0.'
      )
