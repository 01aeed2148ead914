"""What a run will cost, before it starts."""

import dataclasses
import json
import math
from typing import Any

import jax
from jax.extend import backend
import numpy as np

from dppo_jax import parallel
from dppo_jax.models import moe
from dppo_jax.runtime import assembly, downloads, frozen, report
from dppo_jax.runtime.config import Experiment, build_experiment


def plan(config: Any, num_devices: int) -> str:
  """What a config asks for, and what of it is not on this machine.

  Neither weights nor data are needed: without the folder of the model its
  shape is that of section `model`.

  Args:
    config: as of `configs/default.py`.
    num_devices: devices to plan for, on a machine that need not have them; 0:
      those here, or as few as the mesh needs where they do not fit it.

  Raises:
    ValueError: lists every problem of the config.
  """
  wanted = config.to_dict()
  num_devices = have_devices(wanted['mesh'], num_devices)
  missing = downloads.find_missing(wanted)
  lines = [describe(build(config, num_devices))]
  if missing:
    lines += ['', 'Not on this machine, and needed to run:']
    lines += [f'  {problem}' for problem in missing]
  return '\n'.join(lines)


def build(config: Any, num_devices: int) -> Experiment:
  """The experiment of a config whose tokenizer need not be here.

  Raises:
    ValueError: lists every problem of the config.
  """
  wanted = config.to_dict()
  experiment = build_experiment(_with_words(config), num_devices)
  if downloads.has_tokenizer(wanted):
    return experiment
  resolved = json.loads(json.dumps(wanted))
  return dataclasses.replace(experiment, resolved=resolved)


def have_devices(mesh: dict[str, int], wanted: int) -> int:
  """Pretends to have so many devices; only shapes are asked of them."""
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
  """The config with the words of a task where the tokenizer is missing."""
  if downloads.has_tokenizer(config.to_dict()) or not config.model.vocab_size:
    return config
  other: Any = config.copy_and_resolve_references()
  other.data.update(tokenizer='', chat_template=False, system_prompt='')
  return other


def describe(experiment: Experiment) -> str:
  """The resolved config, parameters, token budget and memory estimate."""
  parts = assembly.assemble_model(experiment)
  sampling, data, step = experiment.sampling, experiment.data, experiment.step
  rows = data.num_prompts * data.group_size
  columns = data.max_prompt_length + sampling.max_completion_length
  estimate = memory(experiment, parts)
  mesh = ' · '.join(f'{axis} {n}' for axis, n in parts.mesh.shape.items())
  lines = [
    json.dumps(experiment.resolved, indent=2),
    '',
    f'parameters         {report.show_parameters(experiment, parts)}',
    f'devices            {parts.mesh.size}, mesh {mesh}',
    f'train steps        {experiment.num_steps:,} of'
    f' {step.num_minibatches} updates',
    f'completions a step {rows:,} ({data.num_prompts} prompts ×'
    f' {data.group_size})',
    f'sampled tokens     at most {rows * sampling.max_completion_length:,} a'
    f' step,'
    f' {rows * sampling.max_completion_length * experiment.num_steps:,} in all',
    f'trained tokens     at most {rows * columns:,} a step',
    '',
    'Memory a device, estimated from shapes:',
    *(f'  {name:<16} {show_bytes(size)}' for name, size in estimate.items()),
    f'  {"at most":<16} {show_bytes(peak(estimate))}',
  ]
  return '\n'.join(lines)


def show_bytes(size: float) -> str:
  """A size as people say it: '25.4 KiB'."""
  for unit in ('B', 'KiB', 'MiB'):
    if size < 1024:
      return f'{size:,.1f} {unit}'
    size /= 1024
  return f'{size:,.1f} GiB'


def peak(estimate: dict[str, float]) -> float:
  """Bytes a device at the worst moment: sampling or training, not both.

  Args:
    estimate: of `memory`.
  """
  sampling = estimate['sampling cache']
  names = ('gradients', 'activations', 'attention scores')
  training = sum(estimate[name] for name in names)
  rest = sum(estimate.values()) - sampling - training
  return rest + max(sampling, training)


def memory(
  experiment: Experiment, parts: assembly.ModelParts
) -> dict[str, float]:
  """Bytes a device of the largest arrays, by name.

  State and gradients are exact; the cache and the logits are those of the rows
  sampled at once or a chunk of the head, the activations those of a microbatch;
  what the compiler adds or saves is not known here.
  """
  model, step = experiment.model, experiment.step
  data = experiment.data
  devices = parts.mesh.size
  rows = data.num_prompts * data.group_size
  part = rows / step.num_minibatches / step.num_microbatches
  completion = experiment.sampling.max_completion_length
  columns = data.max_prompt_length + completion
  itemsize = np.dtype(jax.dtypes.canonicalize_dtype(model.dtype)).itemsize
  kv_a_token = 2 * model.num_layers * model.num_kv_heads * model.head_dim
  state = assembly.abstract_state(parts)
  at_once = experiment.sampling.rows_at_once or rows
  # Rows that wait for slots take their prompts with them.
  prompts = data.num_prompts if at_once == rows else at_once
  # Inputs of the products of a layer, which the backward pass reads again.
  # Devices of the tensor axis hold the same residual stream, or share it out.
  residual, saved = 4 * model.d_model, 2 * model.num_heads * model.head_dim
  sparse = [moe.is_sparse(model, i) for i in range(model.num_layers)]
  width = model.num_experts_per_tok * model.moe_intermediate_size
  dense = model.num_layers - sum(sparse)
  saved += 3 * (dense * model.d_ff + sum(sparse) * width) / model.num_layers
  if model.remat == 'full':
    residual, saved = model.d_model, 0
  if not model.shard_sequence:
    residual *= parts.mesh.shape['tensor']
  chunk = assembly.vocabulary_layout(experiment, parts.mesh, 1.0).chunk_rows
  shards = parallel.num_batch_shards(parts.mesh)
  logit_rows = max(at_once / shards, min(part * completion / shards, chunk))
  stats = 8 * experiment.sampling.top_k + 8
  parameters = _bytes_a_device(state.params)
  base = {}
  if experiment.lora is not None:
    # Without the folder: published models are in bfloat16.
    told = experiment.base_dtype or not downloads.has_weights(
      experiment.pretrained
    )
    known = dataclasses.replace(
      experiment, base_dtype=experiment.base_dtype or 'bfloat16'
    )
    abstract = frozen.abstract_base(known if told else experiment)
    base['frozen weights'] = _bytes_a_device(abstract)
  return {
    **base,
    'parameters': parameters,
    'optimizer state': _bytes_a_device(state.opt_state),
    'gradients': parameters,
    'sampling cache': itemsize
    * kv_a_token
    * (prompts * data.max_prompt_length + at_once * completion)
    / devices,
    'recorded stats': rows * columns * stats / devices,
    'activations': itemsize
    * model.num_layers
    * (residual + saved)
    * part
    * columns
    / devices,
    # Of one layer: scores and weights f32, and what flows back to them.
    'attention scores': 4
    * 3
    * part
    / shards
    * model.num_heads
    / parts.mesh.shape['tensor']
    * columns**2,
    'logits': 4
    * 2
    * logit_rows
    * model.vocab_size
    / parts.mesh.shape['tensor'],
  }


def _bytes_a_device(tree: object) -> float:
  return float(
    sum(
      np.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
      for leaf in jax.tree.leaves(tree)
    )
  )
