"""The examples of a run: of a task, of a source, of a mixture of them."""

from typing import Any, NamedTuple

from dppo_jax.base import Example, Tokenizer
from dppo_jax.data import builder, sources
from dppo_jax.data.prompts import PromptStream
from dppo_jax.runtime.config import Experiment
from dppo_jax.runtime.data_problems import SAME, TASK
from dppo_jax.runtime.sections import DataConfig


class Prepared(NamedTuple):
  """Examples to train on, the weights of their components, and what was left.

  Attributes:
    examples: unique ids; of a mixture with 'component' and 'source'.
    weights: one a component.
    num_duplicates: rows left out because another one has their prompt.
    num_conflicts: those of them that have another answer.
    num_unanswered: rows left out because they have no reference answer.
    num_trained_on: held-out prompts that stand in the training set.
  """

  examples: tuple[Example, ...]
  weights: tuple[float, ...]
  num_duplicates: int
  num_conflicts: int
  num_unanswered: int
  num_trained_on: int


def training(data: DataConfig) -> Prepared:
  """What a run trains on.

  Raises:
    ValueError: a file is missing or cannot be read.
  """
  if not data.mixture:
    found = _load(data, data.source, 'train', data.files, 'data.files')
    return Prepared(found.examples, (1.0,), *found[1:], num_trained_on=0)
  examples: list[dict[str, Any]] = []
  num_duplicates = num_conflicts = num_unanswered = start = 0
  for component, (name, files, _) in enumerate(data.mixture):
    found = _load(data, name, 'train', files, 'data.mixture')
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
    num_unanswered += found.num_unanswered
  weights = tuple(float(weight) for _, _, weight in data.mixture)
  return Prepared(
    tuple(examples), weights, num_duplicates, num_conflicts, num_unanswered, 0
  )


def held_out(experiment: Experiment) -> Prepared:
  """What a run is evaluated on.

  Raises:
    ValueError: a file is missing or cannot be read.
  """
  data, evaluation = experiment.data, experiment.evaluation
  name, files = evaluation.source, evaluation.files
  if name == SAME:
    name = data.source
    if evaluation.split == 'train':
      files = files or data.files
  found = _load(data, name, evaluation.split, files, 'evaluation.files')
  return Prepared(found.examples, (1.0,), *found[1:], num_trained_on=0)


def prepare(experiment: Experiment) -> tuple[Prepared, Prepared]:
  """What a run trains on, and what it is evaluated on, compared.

  Raises:
    ValueError: see `training`, `held_out` and `compare`.
  """
  trained = training(experiment.data)
  drop = experiment.evaluation.drop_trained_on
  return trained, compare(held_out(experiment), trained, drop=drop)


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


def open_stream(
  experiment: Experiment, tokenizer: Tokenizer, prepared: Prepared
) -> PromptStream:
  """The prompt stream of examples.

  Raises:
    ValueError: see `PromptStream`.
  """
  data = experiment.data
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
  )


def _load(
  data: DataConfig, name: str, split: str, files: str, key: str
) -> sources.Loaded:
  if name == TASK:
    examples = builder.load_split(data.task, split, data.data_dir)
    return sources.Loaded(examples, 0, 0, 0)
  return sources.load_source(
    name, split, files, data.data_dir, data.fields, key
  )
