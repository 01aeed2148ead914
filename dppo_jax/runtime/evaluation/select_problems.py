"""Selecting problems that a model solves sometimes.

The sanity test of DPPO trains on such problems alone, where a policy that
learns must reach 100 %: every problem is sampled n times by the initial model,
and those whose share of right samples is neither low nor high are kept
(1,460 of MATH for DeepSeek-R1-Distill-Qwen-1.5B).
"""

from collections.abc import Callable
import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from dppo_jax import bounded_json
from dppo_jax.base import Params, Prompts, Stream, stream_key
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.rewards.verdicts import (
  common_failure,
  describe_failure,
  failure_share,
)
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.evaluation import evaluate
from dppo_jax.runtime.hosts.preemption import StopRequest
from dppo_jax.runtime.programs.compiled import compile_sampler
from dppo_jax.runtime.programs.parts import Parts
from dppo_jax.runtime.storage.files import write_atomically

# Sections of the config that decide what is sampled and how it is judged.
_SECTIONS = ('seed', 'data', 'model', 'sampling', 'evaluation', 'rewards')


class Selection(NamedTuple):
  """The number of problems kept, of how many, and the file of all of them."""

  num_kept: int
  num_problems: int
  sampled_path: pathlib.Path


def select(
  experiment: Experiment,
  parts: Parts,
  params: Params,
  pool: VerifierPool,
  stop: StopRequest,
  *,
  num_samples: int,
  low: float,
  high: float,
  path: pathlib.Path,
  note: Callable[[int, int], None],
) -> Selection:
  """Samples every training prompt and writes those solved sometimes.

  Sampled problems are kept beside `path`, in NAME.sampled.jsonl; the same
  command goes on after the last of them, and another `low` or `high` needs no
  sampling.

  Args:
    experiment: its training prompts, with the temperature and top-p of its
      evaluation; `evaluation.num_prompts` at once.
    parts: of the experiment.
    params: of the model.
    pool: the verifier.
    stop: looked at after every batch.
    num_samples: n, samples per problem.
    low: least share of right samples that is kept.
    high: largest share that is kept.
    path: JSON lines for the source 'rows': 'prompt', 'answer', and 'level',
      'source', 'num_right', 'num_samples'.
    note: is told (problems done, of how many) after every batch.

  Raises:
    ValueError: bad numbers, or samples of another config lie there.
    Preempted: asked to stop; what was sampled is kept.
  """
  if num_samples < 1 or not 0 <= low <= high <= 1:
    raise ValueError(
      f'--num_samples: got {num_samples}, --low={low}, --high={high}; at least'
      ' 1 sample, and 0 <= low <= high <= 1.'
    )
  found = path.with_name(f'{path.stem}.sampled.jsonl')
  settings = {name: experiment.resolved[name] for name in _SECTIONS}
  total, size = parts.prompts.num_examples, experiment.evaluation.num_prompts
  # Shuffled: one that was stopped holds a sample, not the first problems.
  settings |= {'num_samples': num_samples, 'order': 'shuffled'}
  rows = _read(found, settings, size, total)
  sample = _compile_batch(experiment, parts, params, pool, num_samples)
  for begin in range(len(rows), total, size):
    rows += sample(begin)
    with found.open('a', encoding='utf-8') as file:
      file.write(_lines(rows[begin:]))
    note(len(rows), total)
    if stop and len(rows) < total:
      done = f'Stopped after {len(rows)} of {total} problems.'
      raise stop.stop(f'{done} Run the same command to go on.')
  kept = [r for r in rows if low <= r['num_right'] / num_samples <= high]
  write_atomically(path, _lines(kept))
  return Selection(len(kept), total, found)


def _compile_batch(
  experiment: Experiment,
  parts: Parts,
  params: Params,
  pool: VerifierPool,
  num_samples: int,
) -> Callable[[int], list[dict[str, Any]]]:
  """First problem of a batch -> its problems, and how often each was solved."""
  if experiment.environment.name:
    raise ValueError(
      f'environment.name: got {experiment.environment.name!r}; problems are'
      " selected by single answers; set it to ''."
    )
  parts = dataclasses.replace(parts, held_out=parts.prompts)
  config, size = experiment.evaluation, experiment.evaluation.num_prompts
  sampler = compile_sampler(
    parts, dataclasses.replace(config.sampled, group_size=num_samples)
  )
  everything = parts.prompts.shuffled()

  def sample(begin: int) -> list[dict[str, Any]]:
    key = stream_key(jax.random.PRNGKey(experiment.seed), Stream.SELECT, begin)
    answers = evaluate.answer(
      parts,
      sampler,
      pool,
      params,
      _part(everything, begin, begin + size),
      key,
      size,
      config.stop_strings,
      num_samples,
      experiment.rewards.truncated,
    )
    if failure_share(answers.verdicts) == 1.0:
      # Each problem would count as one that is never solved.
      raise ValueError(describe_failure(1.0, common_failure(answers.verdicts)))
    right = np.sum(answers.rewards() > 0, axis=1).tolist()
    examples = parts.prompts.examples(answers.example_id)
    return [
      {**example, 'num_right': count, 'num_samples': num_samples}
      for example, count in zip(examples, right, strict=True)
    ]

  return sample


def _part(prompts: Prompts, begin: int, end: int) -> Prompts:
  return jax.tree.map(lambda leaf: leaf[begin:end], prompts)


def _lines(rows: list[dict[str, Any]]) -> str:
  return ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)


def _read(
  path: pathlib.Path, settings: dict[str, Any], batch_size: int, total: int
) -> list[dict[str, Any]]:
  """The problems that were sampled before; begins the file where it is new.

  A batch that a killed process left unfinished is dropped, so that the rest
  is sampled as it would have been.
  """
  first = _lines([settings])
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, first)
    return []
  # Not by str.splitlines, which also breaks at signs that JSON may hold.
  text = path.read_text(encoding='utf-8', errors='replace')
  begin, *lines = text.split('\n')
  if f'{begin}\n' != first:
    raise ValueError(
      f'--out: {path} holds samples of another config or number of samples;'
      ' delete it, or choose another --out.'
    )
  whole = lines[:-1]  # What follows the last line break is unfinished.
  if len(whole) < total:
    whole = whole[: len(whole) // batch_size * batch_size]
  try:
    rows = [bounded_json.parse(line) for line in whole]
  except ValueError as error:
    raise ValueError(
      f'--out: {path} is damaged ({error}); delete it, or restore it from a'
      ' copy.'
    ) from error
  write_atomically(path, first + _lines(rows))
  return rows
