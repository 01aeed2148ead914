"""Cost of a run, before it starts."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import math
import pathlib
from typing import Any

import jax
from jax.extend import backend

from dppo_jax import reasoning_tasks
from dppo_jax.commands import entry_points, keys
from dppo_jax.planning import missing_files
from dppo_jax.planning.memory import memory, peak, show_bytes
from dppo_jax.runtime.config.build import build_experiment
from dppo_jax.runtime.config.checks.data import LIBRARY
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.reporting import header


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPlan:
  """What a run will do, and need.

  Attributes:
    config: as resolved, plain.
    parameters: text: how many, and how many of them train.
    mesh: sizes by axis.
    num_steps: train steps.
    num_updates: optimizer updates per step.
    num_microbatches: gradient-accumulation steps per update.
    num_prompts: N, per step.
    group_size: G, completions per prompt.
    prompt_length: P, tokens, at most.
    completion_length: R, tokens, at most.
    sampled_tokens: per step, at most.
    trained_tokens: per step, prompts included, at most.
    memory: bytes per device of the largest arrays, by name.
    missing: sentences on files that this machine lacks.
  """

  config: dict[str, Any]
  parameters: str
  mesh: dict[str, int]
  num_steps: int
  num_updates: int
  num_microbatches: int
  num_prompts: int
  group_size: int
  prompt_length: int
  completion_length: int
  sampled_tokens: int
  trained_tokens: int
  memory: dict[str, float]
  missing: tuple[str, ...]

  def to_json(self) -> dict[str, Any]:
    """Every field, with what differs from the defaults, and the peak."""
    return {
      'differs': differences(self.config),
      **dataclasses.asdict(self),
      'peak_bytes': peak(self.memory),
    }


def show(config: Any, num_devices: int, json_file: str = '') -> str:
  """Text of `make_plan`: what differs from the defaults, cost, missing files.

  Args:
    config: as of `make_plan`.
    num_devices: as of `make_plan`.
    json_file: also write the plan there, as JSON; '-' for JSON in place of the
      text.

  Raises:
    ValueError: lists every problem of the config, or the file cannot be
      written.
  """
  made = make_plan(config, num_devices)
  if json_file:
    text = json.dumps(made.to_json(), indent=2)
    if json_file == '-':
      return text
    path = pathlib.Path(json_file).expanduser()
    try:
      path.write_text(text + '\n', encoding='utf-8')
    except OSError as error:
      raise ValueError(
        f'--plan_json: cannot write {path} ({error.strerror}); name a file in a'
        ' folder that exists.'
      ) from error
  return describe(made)


def make_plan(config: Any, num_devices: int) -> RunPlan:
  """Cost of a run, and files missing on this machine.

  Neither weights nor data are needed: without the model's folder its shape is
  that of section `model`.

  Args:
    config: with the keys of `configs/default.py`.
    num_devices: devices to plan for, need not be attached; 0: local devices, or
      the fewest that the mesh needs if those do not fit it.

  Raises:
    ValueError: lists every problem of the config.
  """
  wanted = config.to_dict()
  num_devices = have_devices(wanted['mesh'], num_devices)
  missing = missing_files.find_missing(wanted)
  return examine(build(config, num_devices), missing)


def build(config: Any, num_devices: int) -> Experiment:
  """Experiment of a config whose tokenizer may be missing.

  Raises:
    ValueError: lists every problem of the config.
  """
  wanted = config.to_dict()
  experiment = build_experiment(_with_words(config), num_devices)
  if missing_files.has_tokenizer(wanted):
    return experiment
  resolved = json.loads(json.dumps(wanted))
  data = dataclasses.replace(
    experiment.data,
    source=wanted['data']['source'],
    tasks=reasoning_tasks.parse(wanted['data']['tasks']),
  )
  return dataclasses.replace(experiment, resolved=resolved, data=data)


def have_devices(mesh: dict[str, int], wanted: int) -> int:
  """Number of devices, simulated on the CPU if they are not attached."""
  here = jax.device_count()
  fewest = math.prod(size for size in mesh.values() if size > 0)
  fits = here % fewest == 0 if -1 in mesh.values() else here == fewest
  number = wanted or (here if fits else fewest)
  if number != here:
    backend.clear_backends()
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', number)
  return number


def _with_words(config: Any) -> Any:
  """Config with the word tokenizer of a task if its own is missing."""
  if (
    missing_files.has_tokenizer(config.to_dict()) or not config.model.vocab_size
  ):
    return config
  other: Any = config.copy_and_resolve_references()
  other.data.update(tokenizer='', chat_template=False, system_prompt='')
  if other.data.source == LIBRARY:  # No run reads it with words alone.
    other.data.update(source='gsm8k', tasks=())
  return other


def examine(experiment: Experiment, missing: Sequence[str] = ()) -> RunPlan:
  """Cost of an experiment.

  Args:
    experiment: of `build`.
    missing: sentences on files that it lacks.
  """
  parts = parts_lib.assemble_model(experiment)
  data, step = experiment.data, experiment.learner
  completions = data.num_prompts * data.group_size
  return RunPlan(
    config=experiment.resolved,
    parameters=header.show_parameters(experiment, parts),
    mesh=dict(parts.mesh.shape),
    num_steps=experiment.num_steps,
    num_updates=step.num_minibatches,
    num_microbatches=step.num_microbatches,
    num_prompts=data.num_prompts,
    group_size=data.group_size,
    prompt_length=data.max_prompt_length,
    completion_length=experiment.sampling.max_completion_length,
    sampled_tokens=completions * experiment.sampling.max_completion_length,
    trained_tokens=completions
    * (data.max_prompt_length + experiment.sampling.max_completion_length),
    memory=memory(experiment, parts),
    missing=tuple(missing),
  )


def describe(made: RunPlan) -> str:
  """Text of a plan."""
  changes = differences(made.config)
  width = max(map(len, changes), default=0)
  mesh = ' · '.join(f'{axis} {n}' for axis, n in made.mesh.items())
  count = math.prod(made.mesh.values())
  rows = made.num_prompts * made.group_size
  lines = [
    f'{len(changes)} keys differ from {entry_points.keys_file()}:',
    *(
      f'  {key:<{width}}  {before!r} -> {after!r}'
      for key, (before, after) in changes.items()
    ),
    '',
    f'parameters         {made.parameters}',
    f'devices            {count}, mesh {mesh}',
    f'train steps        {made.num_steps:,} of {made.num_updates} updates',
    f'microbatches       {made.num_microbatches} per update',
    f'completions        {rows:,} per step ({made.num_prompts} prompts ×'
    f' {made.group_size})',
    f'lengths            completions of {made.completion_length:,} tokens,'
    f' prompts of {made.prompt_length:,}, at most',
    f'sampled tokens     at most {made.sampled_tokens:,} per step,'
    f' {made.sampled_tokens * made.num_steps:,} in all',
    f'trained tokens     at most {made.trained_tokens:,} per step',
    '',
    'Memory per device of the largest arrays, estimated from their shapes:',
    *(f'  {name:<16} {show_bytes(size)}' for name, size in made.memory.items()),
    f'  {"at once":<16} {show_bytes(peak(made.memory))}',
    'in sampling or training, the larger, without what a compiler adds; the',
    'command plan compiles for a --topology and says whether it fits.',
  ]
  if made.missing:
    lines += ['', 'Not on this machine, and needed to run:']
    lines += [f'  {problem}' for problem in made.missing]
  return '\n'.join(lines)


def differences(config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
  """(default, value) of each key that differs from its default, by path.

  Args:
    config: as resolved, plain.
  """
  defaults = json.loads(json.dumps(keys.known()))  # No tuples.
  return {
    path: (defaults.get(path), value)
    for path, value in keys.flat(config).items()
    if defaults.get(path) != value
  }
