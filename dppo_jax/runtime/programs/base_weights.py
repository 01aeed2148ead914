"""The frozen weights under an adapter: read, told apart, counted.

They are in no checkpoint. A run that goes on reads them where it read them
first, or draws them again from the seed; a fingerprint in every checkpoint
refuses others.
"""

from collections.abc import Mapping
import dataclasses
import math
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dppo_jax import parallel
from dppo_jax.base import Array, Params, Stream, stream_key
from dppo_jax.models.policy import make_policy
from dppo_jax.runtime import activity
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.config.paths import config_path
from dppo_jax.runtime.hub import load_weights
from dppo_jax.runtime.programs import compiled, digests, state
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.storage import flat_tree

_KEY = 'base_fingerprint'


def with_base(
  experiment: Experiment, parts: parts_lib.Parts
) -> parts_lib.Parts:
  """The parts with the frozen weights on their devices, if there are any.

  Raises:
    ValueError: the pretrained weights are not those of the model, or damaged.
  """
  if experiment.lora is None:
    return parts
  base = load_base(experiment)
  return dataclasses.replace(
    parts, base=base, base_fingerprint=fingerprint(base)
  )


def open_parts(experiment: Experiment) -> parts_lib.Parts:
  """The parts of a run, frozen weights loaded; compiled programs are cached.

  Raises:
    ValueError: data, weights or the folder of the cache cannot be used.
  """
  compiled.use_compilation_cache(experiment.compilation_cache)
  return with_base(experiment, parts_lib.assemble(experiment))


def abstract_base(
  experiment: Experiment, devices: parallel.Devices = None
) -> Params:
  """Shapes, dtypes and shardings of the frozen weights.

  Args:
    experiment: the run.
    devices: of the mesh; None for those here.

  Raises:
    ValueError: the folder of the pretrained model is gone or damaged.
  """
  like = state.abstract_policy(experiment, devices)
  if experiment.lora is not None and experiment.lora.base_dtype:
    dtype = jnp.dtype(experiment.lora.base_dtype)
    return jax.tree.map(lambda leaf: leaf.update(dtype=dtype), like)
  if not experiment.model.pretrained:
    return like
  folder = pathlib.Path(experiment.model.pretrained).expanduser()
  with config_path('model.pretrained'):
    return load_weights.as_stored(folder, like)


def load_base(
  experiment: Experiment, devices: parallel.Devices = None
) -> Params:
  """The frozen weights, from the pretrained folder or else from the seed.

  Args:
    experiment: the run.
    devices: of the mesh; None for those here.

  Raises:
    ValueError: the pretrained weights are not those of the model, or damaged.
  """
  like = abstract_base(experiment, devices)
  if experiment.model.pretrained:
    folder = pathlib.Path(experiment.model.pretrained).expanduser()
    with config_path('model.pretrained'):
      return load_weights.load_params(folder, like)
  policy = make_policy(experiment.model)

  def draw(key: Array) -> Params:
    drawn = nn.unbox(policy.init(stream_key(key, Stream.INIT, 0)))
    return jax.tree.map(lambda leaf, want: leaf.astype(want.dtype), drawn, like)

  shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
  key = jax.random.PRNGKey(experiment.seed)
  return jax.jit(draw, out_shardings=shardings)(key)


def num_parameters(experiment: Experiment) -> int:
  """Weights of the policy without its adapter."""
  leaves = jax.tree.leaves(state.abstract_policy(experiment))
  return sum(math.prod(leaf.shape) for leaf in leaves)


def metadata(parts: parts_lib.Parts) -> dict[str, str]:
  """Metadata of a checkpoint on the weights that it does not hold."""
  return {_KEY: parts.base_fingerprint} if parts.base is not None else {}


def check(parts: parts_lib.Parts, stored: Mapping[str, Any]) -> None:
  """Refuses a checkpoint whose adapter belongs to other weights.

  Args:
    parts: with the base.
    stored: metadata of the checkpoint.

  Raises:
    ValueError: the base is another, or the checkpoint names none.
  """
  if parts.base is not None:
    check_fingerprint(parts.base_fingerprint, stored)


def check_fingerprint(mine: str, stored: Mapping[str, Any]) -> None:
  """As `check`, given the fingerprint of the base."""
  found = stored.get(_KEY)
  if found != mine:
    raise ValueError(
      'checkpoints: the adapter was trained on frozen weights with fingerprint'
      f' {found}, and those of model.pretrained (or of the seed, on this kind'
      f' of device) have {mine}. Give model.pretrained and'
      ' lora.base_dtype of the first run, unchanged, or choose another'
      ' --workdir.'
    )


def fingerprint(params: Params) -> str:
  """Names the bits of a tree of arrays: 16 hexadecimal digits."""
  named = flat_tree.flatten(params)
  # One after the other: the mixed bits of all would be twice the weights.
  mix = jax.jit(digests.leaf_sums)
  with activity.under_way('fingerprinting the frozen weights'):
    sums = {name: jax.device_get(mix(leaf)) for name, leaf in named.items()}
  return digests.digest(params, sums)
