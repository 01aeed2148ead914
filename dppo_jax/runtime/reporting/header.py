"""The header of a run, printed at its start, and its summary at the end."""

from collections import Counter
from collections.abc import Mapping, Sequence
import importlib.metadata
import pathlib
import resource
import shlex
import shutil
import sys
from typing import Any

import jax
import numpy as np

from dppo_jax.commands import entry_points
from dppo_jax.data.prompt_stream import PromptStream
from dppo_jax.learner.loss_config import LossConfig
from dppo_jax.ops.trust_regions import APPLIES_TO, TRUST_REGIONS
from dppo_jax.runtime.config.checks.data import LIBRARY, SAME, TASK
from dppo_jax.runtime.config.experiment import (
  DataConfig,
  EnvironmentConfig,
  Experiment,
)
from dppo_jax.runtime.programs import base_weights, published_notes
from dppo_jax.runtime.programs.parts import ModelParts, Parts
from dppo_jax.runtime.reporting import recorder, summary
from dppo_jax.runtime.storage import metrics_log
from dppo_jax.runtime.storage import workdir as workdir_lib

_STEPS = '--config.num_steps'
_ACCURACY = 'evaluation/sampled_accuracy'
# The first steps compile and are left out of medians.
_NUM_UNSETTLED = 2
_MAX_SHOWN = 8  # Levels, or sources, that a run names at its start.


def num_parameters(parts: ModelParts) -> int:
  """Parameters that train."""
  leaves = jax.tree.leaves(parts.abstract_state.params)
  return sum(int(np.prod(leaf.shape)) for leaf in leaves)


def show_parameters(experiment: Experiment, parts: ModelParts) -> str:
  """How many parameters the policy has, and how many of them train."""
  shown = f'{num_parameters(parts):,}'
  if experiment.lora is None:
    return shown
  frozen_ones = base_weights.num_parameters(experiment)
  return f'{frozen_ones:,} frozen and {shown} of rank {experiment.lora.rank}'


def header(
  experiment: Experiment,
  parts: Parts,
  workdir: pathlib.Path,
  resumed_step: int | None,
) -> str:
  """A few lines about the run that is about to start.

  Args:
    experiment: the run.
    parts: its parts.
    workdir: its folder.
    resumed_step: step it resumes from; None if it is new.
  """
  data, step = experiment.data, experiment.learner
  loss, model = experiment.loss, experiment.model
  updates = step.num_minibatches
  rows = data.num_prompts * data.group_size // updates
  mesh = ' · '.join(f'{axis} {n}' for axis, n in parts.mesh.shape.items())
  facts = {
    'task': f'{_origin(data)},'
    f' {_prompts(parts.prompts, data.max_prompt_length)}',
    **{
      f'{key}s': _counts(found)
      for key, found in parts.prompts.facts().items()
      if found
    },
    'held out': f'{_held_out(experiment)}, '
    f'{_prompts(parts.held_out, data.max_prompt_length)}',
    'policy': f'{show_parameters(experiment, parts)} parameters,'
    f' {model.num_layers} layers, {model.dtype}; sampler'
    f' {experiment.sampling.precision}',
    'devices': f'{parts.mesh.size} × {jax.devices()[0].device_kind},'
    f'{_processes()} mesh {mesh}',
    'rule': _rule(loss),
    'loss': f'{loss.loss_form} form, pi/mu by {loss.importance}, cap'
    f' {_show(loss.ratio_cap)}, floor {_show(loss.ratio_floor)} ·'
    f' {step.aggregation} · advantage {experiment.advantages.estimator}',
    'batch': f'{data.num_prompts} prompts × {data.group_size} completions,'
    f' {updates} updates of {rows}; {experiment.num_steps:,} steps',
    **_talks(experiment.environment),
    'workdir': entry_points.shown(workdir),
  }
  lines = [f'{name:<9} {fact}' for name, fact in facts.items()]
  lines += [
    f'{"note":<9} {text}'
    for text in (
      *published_notes.notes(experiment, parts.tokenizer),
      *published_notes.of_turns(experiment, parts.tokenizer),
    )
  ]
  if resumed_step == experiment.num_steps:
    lines.append(f'Finished already: step {resumed_step} is the last.')
  elif resumed_step is not None:
    lines.append(
      f'Resuming from step {resumed_step} of {experiment.num_steps}.'
    )
  return '\n'.join(lines)


def _talks(environment: EnvironmentConfig) -> dict[str, str]:
  if not environment.name:
    return {}
  return {'turns': f'{environment.name}, at most {environment.max_turns}'}


def _processes() -> str:
  count = jax.process_count()
  return f' {count} processes,' if count > 1 else ''


def _origin(data: DataConfig) -> str:
  if data.mixture:
    return ' + '.join(f'{row.weight:g} {row.source}' for row in data.mixture)
  if data.source == LIBRARY:
    return ' + '.join(f'{task.weight:g} {task.label}' for task in data.tasks)
  return data.task if data.source == TASK else data.source


def _held_out(experiment: Experiment) -> str:
  split, source = experiment.evaluation.split, experiment.evaluation.source
  return split if source == SAME else f'{source}, {split}'


def _counts(found: Counter[str]) -> str:
  """'Level 1 564 · Level 2 1,348', the most frequent ones in their order."""
  shown = sorted(dict(found.most_common(_MAX_SHOWN)).items())
  text = ' · '.join(f'{name} {count:,}' for name, count in shown)
  more = len(found) - len(shown)
  return f'{text} and {more:,} more' if more else text


def _rule(loss: LossConfig) -> str:
  """The rule, whom it compares, and the bounds it reads."""
  row = TRUST_REGIONS[loss.rule]
  compared = f'{loss.divergence} from' if row.reads_divergence else 'against'
  names = [*row.reads]
  if row.gated:
    names += [name for name in APPLIES_TO if getattr(loss.bounds, name)]
  bounds = [f'{name} {_show(getattr(loss.bounds, name))}' for name in names]
  return ' · '.join(
    [f'{loss.rule}, {compared} the {loss.anchor} policy', *bounds]
  )


def _prompts(stream: PromptStream, max_length: int) -> str:
  text = f'{stream.num_examples:,} prompts'
  if stream.num_filtered:
    text += (
      f' ({stream.num_filtered:,} longer than data.max_prompt_length='
      f'{max_length} left out)'
    )
  if stream.num_duplicates:
    text += f', {stream.num_duplicates:,} repeated rows left out'
  if stream.num_conflicts:
    text += f' ({stream.num_conflicts:,} of them with another answer)'
  if stream.num_special:
    text += f', {stream.num_special:,} with text of special tokens'
  text += ''.join(f'; {note}' for note in stream.notes)
  if stream.num_unanswered:
    text += f', {stream.num_unanswered:,} rows without an answer left out'
  if stream.num_trained_on:
    text += f', {stream.num_trained_on:,} that are trained on, too'
  return text


def summarize(
  experiment: Experiment, parts: Parts, workdir: pathlib.Path
) -> dict[str, Any]:
  """The summary of a finished run, from its metrics file alone."""
  rows = metrics_log.read_rows(workdir / metrics_log.METRICS_FILE)
  by_model = experiment.evaluation.reward == 'model'
  held_out = 'evaluation/model_score' if by_model else _ACCURACY
  evaluated = [r for r in rows if held_out in r]
  trained = [r for r in rows if 'rewards/mean' in r]
  settled = trained[_NUM_UNSETTLED:] or trained

  def median(name: str) -> float:
    return float(np.median([float(row[name]) for row in settled]))

  def mean(name: str) -> float:
    return float(np.mean([float(row[name]) for row in trained]))

  dropped = 'trust_region/mean_dropped_weight'
  region = experiment.loss
  facts: dict[str, Any] = {
    'rule': region.rule,
    'divergence': region.divergence,
    'seed': experiment.seed,
    'parameters': num_parameters(parts),
    'steps': len(trained),
    'held_out_before': evaluated[0][held_out],
    'held_out_after': evaluated[-1][held_out],
  }
  if 'evaluation/greedy_accuracy' in evaluated[-1]:
    facts['greedy_after'] = evaluated[-1]['evaluation/greedy_accuracy']
  idle_step, num_idle = recorder.longest_idle(trained)
  if num_idle >= recorder.NUM_IDLE:
    facts['warning'] = recorder.idle_warning(idle_step, num_idle)
  failed = [recorder.failed_share(row) for row in trained]
  if any(failed):
    facts['verifier_failed'] = float(np.mean(failed))
    if 1.0 in failed:
      facts['verifier_failed_steps'] = failed.count(1.0)
  if all(dropped in row for row in trained):  # Not so in an older folder.
    facts['mean_dropped_weight'] = mean(dropped)
  return facts | {
    'reward_mean': mean('rewards/mean'),
    'fraction_masked': mean('trust_region/fraction_masked'),
    'mismatch_mean_abs': mean('mismatch/mean_abs'),
    'skipped_updates': trained[-1]['optimizer/nonfinite_total'],
    'step_s': median('time/step_s'),
    'step_cpu_s': median('time/step_cpu_s'),
    'sampled_tokens_per_s': median('throughput/sampled_tokens_per_s'),
    'trained_tokens_per_s': median('throughput/trained_tokens_per_s'),
    'device': f'{jax.device_count()} × {jax.devices()[0].device_kind}',
    'versions': {
      name: importlib.metadata.version(name)
      for name in ('jax', 'flax', 'optax', 'orbax-checkpoint')
    },
    'peak_memory_gib': _peak_memory_gib(),
  }


def _peak_memory_gib() -> float:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def finish(
  workdir: pathlib.Path, facts: dict[str, Any], arguments: Sequence[str]
) -> str:
  """Writes summary.json and summary.png; returns what to print.

  Args:
    workdir: of the run.
    facts: of `summarize`, perhaps with what the caller adds.
    arguments: of the training command.
  """
  summary.write_summary(workdir, facts)
  picture = summary.draw_summary(workdir)
  width = max(map(len, facts))
  lines = [
    f'  {name:<{width}}  {_show(value)}'
    for name, value in facts.items()
    if not isinstance(value, Mapping)
  ]
  samples = workdir / metrics_log.SAMPLES_FILE
  return '\n'.join(
    [
      'Summary',
      *lines,
      f'Picture:   {entry_points.shown(picture)}',
      f'Samples:   {entry_points.shown(samples)}',
      *next_commands(workdir, arguments),
    ]
  )


def next_commands(workdir: pathlib.Path, arguments: Sequence[str]) -> list[str]:
  """Commands that follow on a finished run, a line each.

  Args:
    workdir: of the run.
    arguments: of the training command.
  """
  folder = entry_points.shown(workdir)
  export = [f'--workdir={folder}', f'--out={folder}_hf', '--step=best']
  return [
    f'Evaluate:  {_command("evaluate", [f"--workdir={folder}"])}',
    f'Export:    {_command("export", export)}',
    *_extend(workdir, arguments),
  ]


def _extend(workdir: pathlib.Path, arguments: Sequence[str]) -> list[str]:
  """The command that goes on for as many steps again, where one can."""
  if not (workdir / workdir_lib.CONFIG).exists():
    return []
  config = workdir_lib.read_config(workdir)
  if config['sampling']['lag']:  # Its last steps sampled nothing ahead.
    return []
  kept = [
    argument
    for argument in arguments
    if argument != '--extend' and not argument.startswith(f'{_STEPS}=')
  ]
  longer = [*kept, f'{_STEPS}={2 * config["num_steps"]}', '--extend']
  return [f'Extend:    {_command("train", longer)}']


def _command(name: str, arguments: Sequence[str]) -> str:
  """A command line to copy, of the environment that this process runs in.

  The console command where it is installed, by name where the shell would find
  it, else the package itself; all work in any folder.
  """
  script = pathlib.Path(sys.executable).with_name('dppo')
  installed = script.is_file()
  program = entry_points.shown(script if installed else sys.executable)
  if installed and shutil.which('dppo') == str(script):
    program = 'dppo'
  module = [] if installed else ['-m', 'dppo_jax']
  return shlex.join([program, *module, name, *arguments])


def _show(value: Any) -> str:
  if isinstance(value, float):
    return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.4g}'
  return f'{value:,}' if isinstance(value, int) else str(value)
