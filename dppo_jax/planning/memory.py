"""Bytes per device: a run's arrays, a device's capacity."""

from collections.abc import Mapping
import dataclasses
import math
import os
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from dppo_jax import hardware, parallel
from dppo_jax.models import moe
from dppo_jax.models.attention import dispatch
from dppo_jax.planning import missing_files
from dppo_jax.runtime.config.experiment import Experiment, replace_keys
from dppo_jax.runtime.programs import base_weights, compiled
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.rollouts import weight_sync

# Arrays that are there in one phase only.
SAMPLING = ('sampler weights', 'sampling cache', 'sampler logits')
TRAINING = (
  'gradients',
  'activations',
  'attention scores',
  'gathered keys',
  'logits',
)


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


def peak(estimate: Mapping[str, float]) -> float:
  """Peak bytes per device: in sampling or training, whichever is larger.

  Args:
    estimate: result of `memory`.
  """
  sampling = sum(estimate.get(name, 0.0) for name in SAMPLING)
  training = sum(estimate.get(name, 0.0) for name in TRAINING)
  rest = sum(estimate.values()) - sampling - training
  return rest + max(sampling, training)


def memory(
  experiment: Experiment, parts: parts_lib.ModelParts
) -> dict[str, float]:
  """Bytes per device of the largest arrays, by name.

  Those of `weights` are exact, the others estimates. Temporaries and savings
  of the compiler are not included.
  """
  return {
    **weights(experiment, parts),
    **activations(experiment, parts.mesh),
  }


def weights(
  experiment: Experiment, parts: parts_lib.ModelParts
) -> dict[str, float]:
  """Bytes per device of weights, their gradients and moments, by name.

  A reference policy and weights that the sampler has for itself are included,
  where the config has them.
  """
  base = None
  if experiment.lora is not None:
    # Without the folder: published models are in bfloat16.
    dtype = experiment.lora.base_dtype
    if not dtype and not missing_files.has_weights(experiment.model.pretrained):
      dtype = 'bfloat16'
    known = replace_keys(experiment, {'lora.base_dtype': dtype})
    base = base_weights.abstract_base(known, parts.mesh.devices)
  state = parts.abstract_state
  synced = weight_sync.compile_weight_sync(
    dataclasses.replace(parts, base=base), experiment
  )
  parameters = _bytes_per_device(state.params)
  sizes: dict[str, float] = {}
  if base is not None:
    sizes['base weights'] = _bytes_per_device(base)
    if synced.parts.base is not base:
      sizes['sampler base'] = _bytes_per_device(synced.parts.base)
  sizes['parameters'] = parameters
  sizes['optimizer state'] = _bytes_per_device(state.opt_state)
  sizes['gradients'] = parameters
  if experiment.loss.kl_coefficient:
    sizes['reference policy'] = parameters
  if synced.move is not None:
    sizes['sampler weights'] = _bytes_per_device(synced.abstract_weights)
  return sizes


def activations(experiment: Experiment, mesh: Mesh) -> dict[str, float]:
  """Estimated bytes per device of what depends on the batch, by name.

  KV cache and the sampler's logits are those of the rows sampled at once;
  activations are those of a microbatch, logits those of an LM-head chunk.
  """
  model, data = experiment.model, experiment.data
  devices, tensor = mesh.size, mesh.shape['tensor']
  rows = data.num_prompts * data.group_size
  part = _microbatch_rows(experiment)
  completion = experiment.sampling.max_completion_length
  columns = data.max_prompt_length + completion
  itemsize = np.dtype(jax.dtypes.canonicalize_dtype(model.dtype)).itemsize
  kv_per_token = 2 * model.num_layers * model.num_kv_heads * model.head_dim
  at_once = experiment.sampling.num_slots or rows
  # With slots, only prompts of rows in slots are in the cache.
  prompts = data.num_prompts if at_once == rows else at_once
  cached = prompts * data.max_prompt_length + at_once * completion
  saved = model.num_layers * _saved_per_token(experiment, tensor)
  chunk = compiled.vocabulary_layout(experiment, mesh, 1.0).head_chunk_tokens
  shards = parallel.num_batch_shards(mesh)
  logit_rows = min(part * completion / shards, chunk)
  per_logit = 4 * 2 * model.vocab_size / tensor
  stats = 8 * experiment.sampling.top_k + 8
  if experiment.sampling.support is not None:
    stats += 4 * experiment.sampling.support.top_k
  return {
    'sampling cache': itemsize * kv_per_token * cached / devices,
    'recorded stats': rows * columns * stats / devices,
    'activations': itemsize * saved * part * columns / devices,
    **_attention(experiment, mesh, part),
    'logits': per_logit * logit_rows,
    'sampler logits': per_logit * at_once / shards,
  }


def _attention(
  experiment: Experiment, mesh: Mesh, part: float
) -> dict[str, float]:
  """Bytes per device in attention, of one layer.

  Args:
    experiment: the run.
    mesh: devices.
    part: rows of a microbatch.
  """
  model, tensor = experiment.model, mesh.shape[parallel.SEQUENCE_AXIS]
  rows = part / parallel.num_batch_shards(mesh)
  prompt = experiment.data.max_prompt_length
  completion = experiment.sampling.max_completion_length
  lengths, width = (prompt, completion), completion
  if experiment.loss.shared_rows == 1:
    lengths, width = (prompt + completion,), prompt + completion
  by_columns = model.shard_attention == 'columns'
  held = dispatch.num_scores(
    _platform(mesh.devices.flat[0]),
    model.attention,
    rows=math.ceil(rows),
    width=width // tensor if by_columns else width,
    lengths=lengths,
  )
  heads = model.num_heads if by_columns else model.num_heads / tensor
  # Scores, weights and a gradient, f32.
  found = {'attention scores': 4.0 * 3 * heads * held}
  if by_columns and tensor > 1:
    keys = 2 * model.num_kv_heads * model.head_dim * rows * sum(lengths)
    # Their gradients before they are added up, too.
    itemsize = np.dtype(jax.dtypes.canonicalize_dtype(model.dtype)).itemsize
    found['gathered keys'] = 2 * keys * itemsize
  return found


def _platform(device: Any) -> str:
  """Platform of a device, or of one that stands for it."""
  if device.platform in ('cpu', 'gpu', 'tpu'):
    return str(device.platform)
  return 'tpu' if device.device_kind.startswith('TPU') else 'gpu'


def _microbatch_rows(experiment: Experiment) -> float:
  data, step = experiment.data, experiment.learner
  rows = data.num_prompts * data.group_size
  return rows / step.num_minibatches / step.num_microbatches


def _saved_per_token(experiment: Experiment, tensor: int) -> float:
  """Values per layer and token that the backward pass reads again.

  They are inputs of matrix products. The residual stream is replicated over
  the tensor axis, or sharded.
  """
  model = experiment.model
  residual, saved = 4 * model.d_model, 2 * model.num_heads * model.head_dim
  sparse = [moe.is_sparse(model, i) for i in range(model.num_layers)]
  width = model.num_experts_per_tok * model.moe_intermediate_size
  dense = model.num_layers - sum(sparse)
  saved += 3 * (dense * model.d_ff + sum(sparse) * width) / model.num_layers
  if model.remat == 'full':
    residual, saved = model.d_model, 0
  if not model.shard_sequence:
    residual *= tensor
  return residual + saved


def _bytes_per_device(tree: object) -> float:
  return float(
    sum(
      np.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
      for leaf in jax.tree.leaves(tree)
    )
  )
