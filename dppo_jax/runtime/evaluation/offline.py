"""A look at a training from outside: its config, a checkpoint, its answers."""

from collections.abc import Mapping
import contextlib
import json
import pathlib
from typing import Any

from dppo_jax import parallel
from dppo_jax.base import TrainState
from dppo_jax.configs import default
from dppo_jax.data import sources
from dppo_jax.data.prompt_stream import subset_order
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.runtime import activity
from dppo_jax.runtime.config.experiment import CheckpointsConfig, Experiment
from dppo_jax.runtime.evaluation.accuracy import shown
from dppo_jax.runtime.evaluation.evaluate import (
  Answers,
  EvaluateFn,
  Evaluation,
  compile_evaluation,
)
from dppo_jax.runtime.evaluation.results import write_results
from dppo_jax.runtime.hosts.preemption import stop_on_signals
from dppo_jax.runtime.programs import base_weights, published_notes
from dppo_jax.runtime.programs.parts import Parts
from dppo_jax.runtime.rollouts.reward_model import RewardModel
from dppo_jax.runtime.sft.warm_start import warm_start
from dppo_jax.runtime.storage.checkpoints import Checkpoints
from dppo_jax.runtime.storage.files import write_atomically
from dppo_jax.runtime.storage.find_checkpoint import find_step
from dppo_jax.runtime.storage.workdir import CHECKPOINTS, overlay, read_config

# Metrics -> their names on the console.
_LABELS = {
  'evaluation/greedy_accuracy': 'greedy accuracy',
  'evaluation/length_mean': 'length, tokens',
  'evaluation/truncated': 'truncated, share',
}


def restore_config(
  config: Any,
  workdir: pathlib.Path,
  overrides: Mapping[str, Any],
  num_devices: int,
) -> Any:
  """The config a training recorded, evaluated another way.

  Args:
    config: the defaults, changed in place.
    workdir: of the training.
    overrides: of section `evaluation`; None leaves what was recorded. Another
      source or split is read from files of its own: those that were recorded
      for the old one are forgotten, and so are its fields.
    num_devices: a mesh for another number is laid out anew, data only.

  Returns:
    `config`.

  Raises:
    ValueError: there is none, or it has other keys than the defaults.
  """
  overlay(config, read_config(workdir))
  override(config, overrides)
  try:
    parallel.axis_sizes(**config.mesh, num_devices=num_devices)
  except ValueError:
    config.mesh.update(data=-1, fsdp=1, tensor=1, expert=1)
  return config


def override(config: Any, overrides: Mapping[str, Any]) -> None:
  """Changes section `evaluation` in place; as of `restore_config`."""
  changes = {k: v for k, v in overrides.items() if v is not None}
  _forget_files(config.evaluation, changes)
  for key, value in changes.items():
    config.evaluation[key] = value


def open_config(
  config: Any,
  workdir: pathlib.Path | None,
  overrides: Mapping[str, Any],
  num_devices: int,
) -> Any:
  """The config to evaluate: as given, or as a training recorded it.

  Args:
    config: of a file; None where there is a training.
    workdir: of the training; None where there is a file.
    overrides: as of `restore_config`.
    num_devices: as there.

  Raises:
    ValueError: there are both or neither, or the training cannot be read.
  """
  if (config is None) == (workdir is None):
    got = 'missing' if workdir is None else 'given, and --config, too'
    raise ValueError(
      f'--workdir: {got}; name the run to evaluate, --workdir=DIR, or a config'
      ' whose initial policy to evaluate, --config=FILE.'
    )
  if workdir is not None:
    defaults = default.get_config()
    return restore_config(defaults, workdir, overrides, num_devices)
  override(config, overrides)
  return config


def open_evaluation(
  experiment: Experiment, parts: Parts, pool: VerifierPool
) -> EvaluateFn:
  """The evaluation of a training, with the reward model where it needs one.

  Raises:
    ValueError: the reward model cannot be read.
  """
  for text in published_notes.of_turns(experiment, parts.tokenizer):
    activity.to_console(f'note: {text}')
  model = None
  if experiment.evaluation.reward == 'model':
    model = RewardModel(experiment.rewards.model, parts.mesh)
  return compile_evaluation(parts, experiment.evaluation, pool, model)


def _forget_files(section: Any, changes: Mapping[str, Any]) -> None:
  """Drops what the section says of a source or split that is not its own.

  A source without the recorded split is read from its 'test' split.
  """

  def changed(key: str) -> bool:
    return key in changes and changes[key] != section[key]

  if changed('source') or changed('split'):
    section.files = ''
  if not changed('source'):
    return
  for key in section.fields:
    section.fields[key] = ''
  known = [
    sources.SOURCES[name].splits
    for name in sources.split_names(changes['source'])
    if name in sources.SOURCES
  ]
  if any(splits and section.split not in splits for splits in known):
    section.split = 'test'


def open_policy(
  experiment: Experiment, parts: Parts, workdir: pathlib.Path | None, step: str
) -> TrainState:
  """The policy of a checkpoint; without a run, the one it would begin with.

  Args:
    experiment: the run.
    parts: its parts.
    workdir: of the run, or None.
    step: as of `load_policy`.
  """
  if workdir is not None:
    return load_policy(parts, experiment.checkpoints, workdir, step)
  with stop_on_signals() as stop:
    return warm_start(experiment, parts, stop)


def load_policy(
  parts: Parts, config: CheckpointsConfig, workdir: pathlib.Path, step: str
) -> TrainState:
  """Reads a checkpoint without changing anything; a training may go on.

  Args:
    parts: of the run.
    config: what it keeps.
    workdir: of the run.
    step: 'best', 'latest' or a number.

  Raises:
    ValueError: there is no such checkpoint.
    CheckpointError: it is damaged.
  """
  folder = workdir / CHECKPOINTS
  store = Checkpoints(folder, config.keep, config.best_metric, read_only=True)
  number = find_step(store, workdir, step)
  with contextlib.closing(store):
    state, stored = store.restore(parts.abstract_state, number)
  base_weights.check(parts, stored)
  return state


def describe(
  facts: Mapping[str, Any], parts: Parts, found: Evaluation, num_shown: int
) -> str:
  """Text to print: metrics and the first completions.

  Args:
    facts: 'step', and 'evaluation': the section.
    parts: of the run.
    found: of the evaluation.
    num_shown: completions.
  """
  num_prompts, num_samples = found.sampled.rewards().shape
  how = facts['evaluation']
  lines = [
    f'Step {facts["step"]} on {how["split"]}: {num_prompts} prompts ×'
    f' {num_samples} samples, temperature {how["temperature"]:g},'
    f' top_p {how["top_p"]:g}; intervals of {how["confidence"]:.4g}, by'
    f' {how["num_resamples"]} resamples of the prompts'
  ]
  estimates = {f'avg@{num_samples}': found.statistics.average}
  if 'evaluation/model_score' not in found.metrics:
    estimates |= {
      f'pass@{k}': found.statistics.pass_at[k - 1] for k in shown(num_samples)
    }
  for label, (value, low, high) in estimates.items():
    lines.append(f'  {label:<17} {value:.4g} [{low:.4g}, {high:.4g}]')
  for name, label in _LABELS.items():
    if name in found.metrics:
      lines.append(f'  {label:<17} {found.metrics[name]:.4g}')
  lines.append('Samples (reward, reason: prompt -> completion)')
  listed = problems(parts, found)
  # The first ones of an ordered set are no sample of it.
  for row in subset_order(len(listed))[:num_shown].tolist():
    problem = listed[row]
    first = problem['sampled'][0]
    lines.append(
      f'  {first["reward"]:g}, {first["reason"]}: {problem["prompt"]} ->'
      f' {first["completion"]}'
    )
  return '\n'.join(lines)


def problems(parts: Parts, found: Evaluation) -> list[dict[str, Any]]:
  """Every problem with its completions, as JSON can hold them."""
  sampled = _by_problem(found.sampled)
  greedy = _by_problem(found.greedy) if found.greedy else None
  return [
    {
      **example,
      'sampled': sampled[row],
      **({'greedy': greedy[row][0]} if greedy else {}),
    }
    for row, example in enumerate(
      parts.held_out.examples(found.sampled.example_id)
    )
  ]


def write(
  workdir: pathlib.Path | None,
  out: pathlib.Path | None,
  experiment: Experiment,
  facts: Mapping[str, Any],
  parts: Parts,
  found: Evaluation,
) -> str:
  """Writes the results into the workdir and, if asked, everything to `out`.

  Args:
    workdir: of the training; None where there is none.
    out: a file, or None.
    experiment: as evaluated.
    facts: 'step', and what else `out` is to hold.
    parts: of the run.
    found: of the evaluation.

  Returns:
    Where they are, to print.
  """
  lines = []
  if workdir is not None:
    path = write_results(
      workdir, facts['step'], experiment.evaluation, parts.held_out, found
    )
    lines.append(f'Results: {path}')
  if out is not None:
    write_problems(out, facts, parts, found)
    lines.append(f'Problems: {out}')
  elif workdir is None:
    lines.append('Nothing is written: --out=FILE.json keeps every completion.')
  return '\n'.join(lines)


def write_problems(
  path: pathlib.Path, facts: Mapping[str, Any], parts: Parts, found: Evaluation
) -> None:
  """Writes facts, metrics and all problems to a file of JSON."""
  record = {
    **facts,
    **found.metrics,
    'average': found.statistics.average._asdict(),
    'pass_at': [each._asdict() for each in found.statistics.pass_at],
    'problems': problems(parts, found),
  }
  path.parent.mkdir(parents=True, exist_ok=True)
  text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
  write_atomically(path, text + '\n')


def _by_problem(answers: Answers) -> list[list[dict[str, Any]]]:
  rows = [
    {
      'completion': text,
      'reward': verdict.reward,
      'reason': verdict.reason,
      'length': int(length),
      'truncated': bool(truncated),
    }
    for text, verdict, length, truncated in zip(
      answers.texts,
      answers.verdicts,
      answers.lengths,
      answers.truncated,
      strict=True,
    )
  ]
  size = len(rows) // len(answers.example_id)
  return [rows[i : i + size] for i in range(0, len(rows), size)]
