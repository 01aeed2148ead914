"""Copies of the published models that tests damage or rewrite."""

import json
import pathlib
import shutil

import numpy as np

from dppo_jax.runtime.hub import safetensors_io

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
