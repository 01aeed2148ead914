"""The examples of a run: of a task, of a source, of a mixture of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dppo_jax import reasoning_tasks
from dppo_jax.base import Example, Tokenizer
from dppo_jax.data import reasoning_items, sources, tfds_builder
from dppo_jax.data.hf_tokenizer import HFTokenizer
from dppo_jax.data.mixture import Component
from dppo_jax.data.prompt_stream import PromptStream
from dppo_jax.rewards import countdown, library_scores
from dppo_jax.rewards.terms import parse_terms
from dppo_jax.rewards.verifiers import VERIFIERS
from dppo_jax.runtime import activity
from dppo_jax.runtime.config.checks.data import LIBRARY, SAME, TASK
from dppo_jax.runtime.config.experiment import DataConfig, Experiment

Note = Callable[[str], None]


class Prepared(NamedTuple):
  """Examples to train on, the weights of their components, and what was left.

  Attributes:
    examples: unique ids; of several sources with 'component' and 'source'.
    weights: one a component.
    num_duplicates: rows left out because another one has their prompt.
    num_conflicts: those of them that have another answer.
    num_unanswered: rows left out because they have no reference answer.
    num_trained_on: held-out prompts that stand in the training set.
    notes: sentences on what else was left out, to be told.
  """

  examples: tuple[Example, ...]
  weights: tuple[float, ...]
  num_duplicates: int
  num_conflicts: int
  num_unanswered: int
  num_trained_on: int
  notes: tuple[str, ...] = ()


def training(data: DataConfig, note: Note = lambda text: None) -> Prepared:
  """The examples that a run trains on.

  Args:
    data: section of the config.
    note: receives what is being drawn.

  Raises:
    ValueError: a file is missing or cannot be read.
  """
  if not data.mixture:
    if data.source == LIBRARY:
      return _drawn(data, 'train', note)
    one = Component(data.source, data.files, 1.0, {})
    return _prepare(data, (one,), 'train', 'data.files')
  return _prepare(data, data.mixture, 'train', 'data.mixture')


def held_out(
  experiment: Experiment, note: Note = lambda text: None
) -> Prepared:
  """The examples that a run is evaluated on, of one source or of several.

  Args:
    experiment: the run.
    note: receives what is being drawn.

  Raises:
    ValueError: a file is missing or cannot be read.
  """
  data, evaluation = experiment.data, experiment.evaluation
  name, files = evaluation.source, evaluation.files
  if name == SAME:
    name = data.source
    if evaluation.split == 'train':
      files = files or data.files
  if name == LIBRARY:
    return _drawn(data, evaluation.split, note)
  wanted = [
    Component(one, files, 1.0, evaluation.fields)
    for one in sources.split_names(name)
  ]
  return _prepare(data, wanted, evaluation.split, 'evaluation.files')


def open_stream(
  experiment: Experiment, tokenizer: Tokenizer, prepared: Prepared
) -> PromptStream:
  """The prompt stream of examples.

  Raises:
    ValueError: see `PromptStream`; or a verifier of `rewards.verifier` reads
      fields that an example has not.
  """
  data = experiment.data
  for term in parse_terms(
    'rewards.verifier', experiment.rewards.verifier, VERIFIERS, functions=True
  ):
    if term.name in countdown.NAMES:
      _check_fields(term.name, prepared.examples, countdown.find_problem)
    elif term.name in library_scores.NAMES:
      find_problem = reasoning_tasks.find_missing
      _check_fields(term.name, prepared.examples, find_problem)
  num_special = 0
  if isinstance(tokenizer, HFTokenizer):
    num_special = sum(
      bool(tokenizer.find_special(example['prompt']))
      for example in prepared.examples
    )
  return PromptStream(
    prepared.examples,
    tokenizer,
    data.num_prompts,
    data.max_prompt_length,
    data.overlong,
    experiment.seed,
    prepared.weights,
    num_duplicates=prepared.num_duplicates,
    num_conflicts=prepared.num_conflicts,
    num_unanswered=prepared.num_unanswered,
    num_trained_on=prepared.num_trained_on,
    num_special=num_special,
    notes=prepared.notes,
  )


def _check_fields(
  name: str,
  examples: Sequence[Example],
  find_problem: Callable[[Example], str | None],
) -> None:
  """Refuses examples that a verifier could pay nothing for."""
  for example in examples:
    problem = find_problem(example)
    if problem is None:
      continue
    fix = " Name them in data.fields.extra, as 'target=PATH, numbers=PATH'."
    if name in library_scores.NAMES:
      fix = f' Set data.source={LIBRARY}, or choose another verifier.'
    raise ValueError(
      f'rewards.verifier: {name!r} {problem}; its example'
      f' {example["example_id"]} has {", ".join(map(str, example))}.{fix}'
    )


def _drawn(data: DataConfig, split: str, note: Note) -> Prepared:
  """Items of data.tasks."""
  found = reasoning_items.load(
    data.tasks,
    split,
    data.num_items,
    data.data_dir,
    data.max_unverifiable,
    note,
  )
  return Prepared(
    found.examples,
    tuple(task.weight for task in data.tasks),
    found.num_duplicates,
    found.num_conflicts,
    found.num_unanswered,
    0,
    found.notes,
  )


def _prepare(
  data: DataConfig, wanted: Sequence[Component], split: str, key: str
) -> Prepared:
  """Reads sources, and numbers their examples one after another."""
  examples: list[dict[str, Any]] = []
  notes: list[str] = []
  num_duplicates = num_conflicts = num_unanswered = start = 0
  for component, (name, files, _, fields) in enumerate(wanted):
    found = _load(data, name, split, files, key, fields)
    if len(wanted) == 1:
      return Prepared(
        found.examples,
        (wanted[0].weight,),
        found.num_duplicates,
        found.num_conflicts,
        found.num_unanswered,
        0,
        found.notes,
      )
    last = -1
    for example in found.examples:
      last = max(last, example['example_id'])
      examples.append(
        {
          'source': name,
          **example,
          'example_id': start + example['example_id'],
          'component': component,
        }
      )
    start += last + 1
    num_duplicates += found.num_duplicates
    num_conflicts += found.num_conflicts
    notes += [f'{name}: {note}' for note in found.notes]
    num_unanswered += found.num_unanswered
  weights = tuple(float(component.weight) for component in wanted)
  return Prepared(
    tuple(examples),
    weights,
    num_duplicates,
    num_conflicts,
    num_unanswered,
    0,
    tuple(notes),
  )


def prepare(experiment: Experiment) -> tuple[Prepared, Prepared]:
  """The training and held-out examples, compared.

  Raises:
    ValueError: see `training`, `held_out` and `compare`.
  """
  with activity.under_way('reading the training data') as note:
    trained = training(experiment.data, note)
  drop = experiment.evaluation.drop_trained_on
  with activity.under_way('reading the held-out data') as note:
    return trained, compare(held_out(experiment, note), trained, drop=drop)


def compare(held_out: Prepared, trained: Prepared, *, drop: bool) -> Prepared:
  """Held-out examples, with a count of prompts that are trained on.

  Args:
    held_out: of `held_out`.
    trained: of `training`.
    drop: leaves those prompts out, which stand there letter by letter.

  Raises:
    ValueError: nothing is left.
  """
  known = {example['prompt'] for example in trained.examples}
  examples = held_out.examples
  new = tuple(each for each in examples if each['prompt'] not in known)
  if drop and not new:
    raise ValueError(
      f'evaluation.drop_trained_on: all {len(examples):,} held-out prompts'
      ' stand in the training set; name other held-out data in'
      ' evaluation.source or evaluation.files.'
    )
  return held_out._replace(
    examples=new if drop else examples,
    num_trained_on=len(examples) - len(new),
  )


def _load(
  data: DataConfig,
  name: str,
  split: str,
  files: str,
  key: str,
  fields: Mapping[str, str],
) -> sources.Loaded:
  if name == TASK:
    examples = tfds_builder.load_split(data.task, split, data.data_dir)
    return sources.Loaded(examples, 0, 0, 0)
  return sources.load_source(
    name, split, files, data.data_dir, data.fields, key, fields
  )
