"""Cost of a run, before it starts."""

import dataclasses
import json
import math
from typing import Any

import jax
from jax.extend import backend

from dppo_jax.planning import missing_files
from dppo_jax.planning.memory import memory, peak, show_bytes
from dppo_jax.runtime.config.build import build_experiment
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.reporting import header


def plan(config: Any, num_devices: int) -> str:
  """Text of the resolved config, its cost, and files missing on this machine.

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
  lines = [describe(build(config, num_devices))]
  if missing:
    lines += ['', 'Not on this machine, and needed to run:']
    lines += [f'  {problem}' for problem in missing]
  return '\n'.join(lines)


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
  return dataclasses.replace(experiment, resolved=resolved)


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
  return other


def describe(experiment: Experiment) -> str:
  """Text of the resolved config, parameters, tokens and memory estimate."""
  parts = parts_lib.assemble_model(experiment)
  sampling, data, step = (
    experiment.sampling,
    experiment.data,
    experiment.learner,
  )
  rows = data.num_prompts * data.group_size
  columns = data.max_prompt_length + sampling.max_completion_length
  estimate = memory(experiment, parts)
  mesh = ' · '.join(f'{axis} {n}' for axis, n in parts.mesh.shape.items())
  lines = [
    json.dumps(experiment.resolved, indent=2),
    '',
    f'parameters         {header.show_parameters(experiment, parts)}',
    f'devices            {parts.mesh.size}, mesh {mesh}',
    f'train steps        {experiment.num_steps:,} of'
    f' {step.num_minibatches} updates',
    f'completions        {rows:,} per step ({data.num_prompts} prompts ×'
    f' {data.group_size})',
    f'sampled tokens     at most {rows * sampling.max_completion_length:,} per'
    f' step,'
    f' {rows * sampling.max_completion_length * experiment.num_steps:,} in all',
    f'trained tokens     at most {rows * columns:,} per step',
    '',
    'Memory per device, estimated from shapes:',
    *(f'  {name:<16} {show_bytes(size)}' for name, size in estimate.items()),
    f'  {"at most":<16} {show_bytes(peak(estimate))}',
  ]
  return '\n'.join(lines)
