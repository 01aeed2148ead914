"""Bytes per device: a run's arrays, a device's capacity."""

import os
from typing import Any

import jax
import numpy as np

from dppo_jax import hardware, parallel
from dppo_jax.models import moe
from dppo_jax.planning import missing_files
from dppo_jax.runtime.config.experiment import Experiment, replace_keys
from dppo_jax.runtime.programs import base_weights, compiled
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.programs import state as state_lib


def capacity(device: Any) -> float | None:
  """Bytes of memory of a device; None if unknown.

  Args:
    device: a `jax.Device` of this process; CPU devices share the host's memory.
  """
  stats = device.memory_stats()
  if stats and 'bytes_limit' in stats:
    return float(stats['bytes_limit'])
  known = hardware.find_device(device.device_kind)
  if known is not None:
    return known.memory
  if device.platform != 'cpu':
    return None
  total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return total / jax.local_device_count()


def show_bytes(size: float) -> str:
  """Text of a size: '25.4 KiB'."""
  for unit in ('B', 'KiB', 'MiB'):
    if size < 1024:
      return f'{size:,.1f} {unit}'
    size /= 1024
  return f'{size:,.1f} GiB'


def peak(estimate: dict[str, float]) -> float:
  """Peak bytes per device: in sampling or training, whichever is larger.

  Args:
    estimate: result of `memory`.
  """
  sampling = estimate['sampling cache']
  names = ('gradients', 'activations', 'attention scores')
  training = sum(estimate[name] for name in names)
  rest = sum(estimate.values()) - sampling - training
  return rest + max(sampling, training)


def memory(
  experiment: Experiment, parts: parts_lib.ModelParts
) -> dict[str, float]:
  """Bytes per device of the largest arrays, by name.

  State and gradients are exact. KV cache and logits are those of the rows
  sampled at once, or of an LM-head chunk; activations are those of a
  microbatch. Temporaries and savings of the compiler are not included.
  """
  model, step = experiment.model, experiment.learner
  data = experiment.data
  devices = parts.mesh.size
  rows = data.num_prompts * data.group_size
  part = rows / step.num_minibatches / step.num_microbatches
  completion = experiment.sampling.max_completion_length
  columns = data.max_prompt_length + completion
  itemsize = np.dtype(jax.dtypes.canonicalize_dtype(model.dtype)).itemsize
  kv_per_token = 2 * model.num_layers * model.num_kv_heads * model.head_dim
  state = state_lib.abstract_state(parts)
  at_once = experiment.sampling.num_slots or rows
  # With slots, only prompts of rows in slots are in the cache.
  prompts = data.num_prompts if at_once == rows else at_once
  # Inputs of a layer's matrix products, which the backward pass reads again.
  # The residual stream is replicated over the tensor axis, or sharded.
  residual, saved = 4 * model.d_model, 2 * model.num_heads * model.head_dim
  sparse = [moe.is_sparse(model, i) for i in range(model.num_layers)]
  width = model.num_experts_per_tok * model.moe_intermediate_size
  dense = model.num_layers - sum(sparse)
  saved += 3 * (dense * model.d_ff + sum(sparse) * width) / model.num_layers
  if model.remat == 'full':
    residual, saved = model.d_model, 0
  if not model.shard_sequence:
    residual *= parts.mesh.shape['tensor']
  chunk = compiled.vocabulary_layout(
    experiment, parts.mesh, 1.0
  ).head_chunk_tokens
  shards = parallel.num_batch_shards(parts.mesh)
  logit_rows = max(at_once / shards, min(part * completion / shards, chunk))
  stats = 8 * experiment.sampling.top_k + 8
  parameters = _bytes_per_device(state.params)
  base = {}
  if experiment.lora is not None:
    # Without the folder: published models are in bfloat16.
    dtype = experiment.lora.base_dtype
    if not dtype and not missing_files.has_weights(experiment.model.pretrained):
      dtype = 'bfloat16'
    known = replace_keys(experiment, {'lora.base_dtype': dtype})
    abstract = base_weights.abstract_base(known)
    base['base weights'] = _bytes_per_device(abstract)
  return {
    **base,
    'parameters': parameters,
    'optimizer state': _bytes_per_device(state.opt_state),
    'gradients': parameters,
    'sampling cache': itemsize
    * kv_per_token
    * (prompts * data.max_prompt_length + at_once * completion)
    / devices,
    'recorded stats': rows * columns * stats / devices,
    'activations': itemsize
    * model.num_layers
    * (residual + saved)
    * part
    * columns
    / devices,
    # Of one layer: scores, weights and a gradient, f32.
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


def _bytes_per_device(tree: object) -> float:
  return float(
    sum(
      np.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
      for leaf in jax.tree.leaves(tree)
    )
  )
