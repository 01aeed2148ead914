"""The examples of a run: of a task, of a source, of a mixture of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from dppo_jax.base import Example, Tokenizer
from dppo_jax.data import builder, sources
from dppo_jax.data.prompts import PromptStream
from dppo_jax.runtime.config import Experiment
from dppo_jax.runtime.data_problems import SAME, TASK, evaluation_sources
from dppo_jax.runtime.sections import DataConfig


class Prepared(NamedTuple):
  """Examples to train on, the weights of their components, and what was left.

  Attributes:
    examples: unique ids; of a mixture with 'component' and 'source'.
    weights: one a component.
    num_duplicates: rows left out because another one has their prompt.
    num_conflicts: those of them that have another answer.
  """

  examples: tuple[Example, ...]
  weights: tuple[float, ...]
  num_duplicates: int
  num_conflicts: int


def training(data: DataConfig) -> Prepared:
  """What a run trains on.

  Raises:
    ValueError: a file is missing or cannot be read.
  """
  if not data.mixture:
    found = _load(data, data.source, 'train', data.files, 'data.files')
    return Prepared(found.examples, (1.0,), *found[1:])
  parts = [(name, files) for name, files, _ in data.mixture]
  weights = tuple(float(weight) for _, _, weight in data.mixture)
  return _together(data, parts, 'train', 'data.mixture', weights)


def _together(
  data: DataConfig,
  parts: Sequence[tuple[str, str]],
  split: str,
  key: str,
  weights: tuple[float, ...],
) -> Prepared:
  """Sources with their files, one after the other."""
  examples: list[dict[str, Any]] = []
  num_duplicates = num_conflicts = start = 0
  for component, (name, files) in enumerate(parts):
    found = _load(data, name, split, files, key)
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
  return Prepared(tuple(examples), weights, num_duplicates, num_conflicts)


def held_out(experiment: Experiment) -> Prepared:
  """What a run is evaluated on.

  Raises:
    ValueError: a file is missing or cannot be read.
  """
  data, evaluation = experiment.data, experiment.evaluation
  names = evaluation_sources(evaluation.source)
  if len(names) > 1:
    parts = [(name, '') for name in names]
    # Its prompts are taken in order, never drawn by weight.
    ones = (1.0,) * len(names)
    return _together(data, parts, evaluation.split, 'evaluation.source', ones)
  name, files = evaluation.source, evaluation.files
  if name == SAME:
    name = data.source
    if evaluation.split == 'train':
      files = files or data.files
  found = _load(data, name, evaluation.split, files, 'evaluation.files')
  return Prepared(found.examples, (1.0,), *found[1:])


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
  )


def _load(
  data: DataConfig, name: str, split: str, files: str, key: str
) -> sources.Loaded:
  if name == TASK:
    examples = builder.load_split(data.task, split, data.data_dir)
    return sources.Loaded(examples, 0, 0)
  return sources.load_source(
    name, split, files, data.data_dir, data.fields, key
  )
