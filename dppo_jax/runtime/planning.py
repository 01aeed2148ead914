"""What a run will cost, before it starts."""

import json

import jax
import numpy as np

from dppo_jax.models import moe
from dppo_jax.runtime import assembly, frozen, report
from dppo_jax.runtime.config import Experiment


def describe(experiment: Experiment) -> str:
  """The resolved config, parameters, token budget and memory estimate."""
  parts = assembly.assemble(experiment)
  sampling, data, step = experiment.sampling, experiment.data, experiment.step
  rows = data.num_prompts * data.group_size
  columns = data.max_prompt_length + sampling.max_completion_length
  lines = [
    json.dumps(experiment.resolved, indent=2),
    '',
    f'parameters         {report.show_parameters(experiment, parts)}',
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
    *(
      f'  {name:<16} {show_bytes(size)}'
      for name, size in memory(experiment, parts).items()
    ),
  ]
  return '\n'.join(lines)


def show_bytes(size: float) -> str:
  """A size as people say it: '25.4 KiB'."""
  for unit in ('B', 'KiB', 'MiB'):
    if size < 1024:
      return f'{size:,.1f} {unit}'
    size /= 1024
  return f'{size:,.1f} GiB'


def memory(experiment: Experiment, parts: assembly.Parts) -> dict[str, float]:
  """Bytes a device of the largest arrays, by name.

  State and gradients are exact; the cache, the logits and the saved
  activations are those of one rollout batch and one microbatch, and what the
  compiler adds or saves is not known here.
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
  # Inputs of the products of a layer, which the backward pass reads again.
  saved = 4 * model.d_model + 2 * model.num_heads * model.head_dim
  sparse = [moe.is_sparse(model, i) for i in range(model.num_layers)]
  width = model.num_experts_per_tok * model.moe_intermediate_size
  dense = model.num_layers - sum(sparse)
  saved += 3 * (dense * model.d_ff + sum(sparse) * width) / model.num_layers
  if model.remat == 'full':
    saved = model.d_model
  stats = 8 * experiment.sampling.top_k + 8
  parameters = _bytes_a_device(state.params)
  base = {}
  if experiment.lora is not None:
    base['frozen weights'] = _bytes_a_device(frozen.abstract_base(experiment))
  return {
    **base,
    'parameters': parameters,
    'optimizer state': _bytes_a_device(state.opt_state),
    'gradients': parameters,
    'sampling cache': itemsize
    * kv_a_token
    * (data.num_prompts * data.max_prompt_length + rows * completion)
    / devices,
    'recorded stats': rows * columns * stats / devices,
    'activations': itemsize
    * model.num_layers
    * saved
    * part
    * columns
    / devices,
    'logits': 4 * 2 * part * completion * model.vocab_size / devices,
  }


def _bytes_a_device(tree: object) -> float:
  return float(
    sum(
      np.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
      for leaf in jax.tree.leaves(tree)
    )
  )
