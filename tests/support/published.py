"""Copies of the published models that tests damage or rewrite."""

import json
import pathlib
import shutil

import flax.linen as nn
import jax
import numpy as np

from dppo_jax import parallel
from dppo_jax.models.layers import TransformerConfig
from dppo_jax.models.policy import make_policy
from dppo_jax.runtime.hub import hf_config, safetensors_io

MODELS = pathlib.Path(__file__).parents[1] / 'testdata' / 'hf_models'
DENSE = ('llama3_rope_scaled', 'qwen2_tied', 'qwen3_gqa')
ALL = (*DENSE, 'qwen3_moe')


def copy(name, folder):
  """A copy of a model, without its outputs."""
  target = folder / name
  ignore = shutil.ignore_patterns('expected.npz')
  shutil.copytree(MODELS / name, target, ignore=ignore)
  return target


def edit_config(folder, **changes):
  """Changes keys of config.json; None removes one."""
  path = folder / 'config.json'
  raw = {**json.loads(path.read_text()), **changes}
  kept = {key: value for key, value in raw.items() if value is not None}
  path.write_text(json.dumps(kept))


def arrays(folder):
  """Every stored tensor by name."""
  found = {}
  for name, tensor in safetensors_io.open_folder(folder).items():
    found[name] = np.empty(tensor.shape, tensor.dtype)
    everything = [slice(None)] * found[name].ndim
    tensor.read(tensor.shape, everything, found[name])
  return found


def rewrite(folder, changed, max_bytes=2**30):
  """Replaces the stored tensors of a folder."""
  for path in [*folder.glob('*.safetensors'), folder / safetensors_io.INDEX]:
    path.unlink(missing_ok=True)
  tensors = [
    safetensors_io.NewTensor(
      name=name, dtype=array.dtype, shape=array.shape, make=lambda a=array: a
    )
    for name, array in changed.items()
  ]
  return safetensors_io.write_folder(folder, tensors, max_bytes)


def like(folder, mesh_sizes=(1, 1, 1), dtype=None):
  """Abstract parameters of a published model."""
  config = TransformerConfig(
    **hf_config.read_shape(folder),
    dtype='float32',
    scan_unroll=1,
    shard_sequence=False,
    shard_attention='heads',
    remat='none',
    attention='auto',
  )
  devices = jax.devices()[: int(np.prod(mesh_sizes))]
  mesh = parallel.make_mesh(*mesh_sizes, devices=devices)
  boxed = jax.eval_shape(make_policy(config).init, jax.random.PRNGKey(0))
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, dtype or leaf.dtype, sharding=sharding
    ),
    nn.unbox(boxed),
    parallel.tree_shardings(mesh, boxed),
  )
