"""Export of a checkpoint to the Hugging Face or PEFT format."""

import contextlib
import itertools
import pathlib
import re
from typing import Any

import jax
import numpy as np

from dppo_jax.base import Array, Params
from dppo_jax.models.lora import LoraConfig, merge_lazily
from dppo_jax.models.policy import AdaptedParams
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.hub import (
  hf_config,
  json_files,
  load_weights,
  peft_io,
  safetensors_io,
)
from dppo_jax.runtime.hub.safetensors_io import DTYPES, NewTensor
from dppo_jax.runtime.hub.weight_map import Stack, stacks
from dppo_jax.runtime.programs import base_weights, kept_files, state
from dppo_jax.runtime.storage import find_checkpoint
from dppo_jax.runtime.storage.checkpoints import Checkpoints
from dppo_jax.runtime.storage.workdir import CHECKPOINTS

# Keys of config.json on how weights were stored, dropped on export.
_STORAGE = (
  'quantization_config',
  'compression_config',
  '_pre_quantization_dtype',
)
# Values of --lora: what to do with an adapter.
MERGED, ADAPTER = LORA = ('merged', 'adapter')
# Dtype in config.json -> dtype in the header of a safetensors file.
_STORED = {'float32': 'F32', 'float16': 'F16', 'bfloat16': 'BF16'}


def export(
  experiment: Experiment,
  workdir: pathlib.Path,
  out: pathlib.Path,
  step: str,
  dtype: str,
  max_bytes: int,
  lora: str = MERGED,
  base: str = '',
) -> list[pathlib.Path]:
  """Files of the exported checkpoint, after writing them.

  They are config.json, generation_config.json, weights and tokenizer files; or,
  for an adapter that is not merged, adapter_config.json, its weights and the
  tokenizer files.

  Args:
    experiment: of the run.
    workdir: of the run, read only.
    out: a new or empty folder.
    step: 'best', 'latest' or a number.
    dtype: of the weights; '' for the dtype of the pretrained model, or float32
      without one and for an adapter that is not merged.
    max_bytes: of a file of weights.
    lora: one of `LORA`, 'merged' or 'adapter'.
    base: folder or name of the base in adapter_config.json; '' for
      model.pretrained.

  Returns:
    Paths: weights first.

  Raises:
    ValueError: there is no such checkpoint, `out` is not empty, the dtype is
      unknown or too narrow, no published architecture has this shape, there is
      no adapter, its base does not load, or the tokenizer is missing.
    CheckpointError: the checkpoint is damaged.
  """
  if lora not in LORA:
    raise ValueError(f'--lora: got {lora!r}; one of {", ".join(LORA)}.')
  if not dtype:
    source = workdir / kept_files.MODEL
    as_loaded = lora == MERGED and (source / hf_config.CONFIG).is_file()
    dtype = hf_config.read_dtype(source) if as_loaded else 'float32'
  if dtype not in _STORED:
    raise ValueError(f'--dtype: got {dtype!r}; one of {", ".join(_STORED)}.')
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise ValueError(
      f'--out: {out} is there already and not empty; name a new folder.'
    )
  tokenizer = kept_files.find_tokenizer(experiment, workdir)
  if lora == ADAPTER:
    _export_adapter(experiment, workdir, out, step, dtype, base)
    written = []
  else:
    written = _export_model(experiment, workdir, out, step, dtype, max_bytes)
  kept_files.write_tokenizer(experiment, tokenizer, out)
  others = sorted(path for path in out.iterdir() if path not in written)
  return [*written, *others]


def _export_adapter(
  experiment: Experiment,
  workdir: pathlib.Path,
  out: pathlib.Path,
  step: str,
  dtype: str,
  base: str,
) -> None:
  """Writes adapter_config.json and the weights of the adapter alone."""
  if experiment.lora is None:
    raise ValueError(
      f'--lora: got {ADAPTER!r}, and lora.rank=0 trained every weight; leave'
      f' it at {MERGED!r}.'
    )
  base = base or _base(experiment)
  adapter, _ = _restore(experiment, workdir, step)
  out.mkdir(parents=True, exist_ok=True)
  write_adapter(adapter, experiment.lora, base, out, dtype)


def _export_model(
  experiment: Experiment,
  workdir: pathlib.Path,
  out: pathlib.Path,
  step: str,
  dtype: str,
  max_bytes: int,
) -> list[pathlib.Path]:
  """Files of weights, written after the configs of the model."""
  source = workdir / kept_files.MODEL
  if (source / hf_config.CONFIG).is_file():
    config = _kept_config(experiment, source, dtype)
  else:
    config = _new_config(experiment, dtype)
  params = load_params(experiment, workdir, step)
  out.mkdir(parents=True, exist_ok=True)
  json_files.write_json(out / hf_config.CONFIG, config)
  json_files.write_json(
    out / kept_files.GENERATION,
    kept_files.generation_config(experiment, config),
  )
  return write_params(params, out, dtype, max_bytes)


def _base(experiment: Experiment) -> str:
  """Absolute folder of the base of an adapter, after checking that it loads."""
  if not experiment.model.pretrained:
    raise ValueError(
      f'--lora: got {ADAPTER!r}, and the base was drawn from the seed and is in'
      f' no folder; write the whole model with --lora={MERGED}, or name its'
      ' folder with --base.'
    )
  folder = pathlib.Path(experiment.model.pretrained).expanduser().absolute()
  try:
    json_files.read_json(folder / hf_config.CONFIG)
    load_weights.check_tensors(
      folder,
      state.abstract_policy(experiment),
      load_weights.open_tensors(folder),
    )
  except ValueError as error:
    raise ValueError(
      f'--lora: the base of the adapter does not load: {error} Put it back, or'
      ' name where it is now, or what it is called, with --base.'
    ) from error
  return str(folder)


def load_params(
  experiment: Experiment, workdir: pathlib.Path, step: str
) -> Params:
  """Parameters of a checkpoint, without the optimizer state.

  An adapter is merged lazily, as weights are written, into its base weights,
  which are loaded again.

  Raises:
    ValueError: there is no such checkpoint, or the base weights have changed.
    CheckpointError: it is damaged.
  """
  params, stored = _restore(experiment, workdir, step)
  if experiment.lora is None:
    return params
  base = base_weights.load_base(experiment)
  base_weights.check_fingerprint(base_weights.fingerprint(base), stored)
  adapted = AdaptedParams(
    base=base, adapter=params, scale=experiment.lora.scale
  )
  return merge_lazily(adapted)


def _restore(
  experiment: Experiment, workdir: pathlib.Path, step: str
) -> tuple[Params, dict[str, Any]]:
  """Trained parameters, and the metadata of their checkpoint."""
  settings = experiment.checkpoints
  store = Checkpoints(
    workdir / CHECKPOINTS, settings.keep, settings.best_metric, read_only=True
  )
  number = find_checkpoint.find_step(store, workdir, step)
  with contextlib.closing(store):
    return store.restore_params(state.abstract_params(experiment), number)


def write_params(
  params: Params, folder: pathlib.Path, dtype: str, max_bytes: int
) -> list[pathlib.Path]:
  """Files of weights, after writing them tensor by tensor.

  Args:
    params: nested dict of arrays.
    folder: exists.
    dtype: 'float32', 'bfloat16' or 'float16'.
    max_bytes: of a file.

  Returns:
    Paths, including the index of several files.

  Raises:
    ValueError: a finite weight is infinite in `dtype`.
  """
  paths = safetensors_io.write_folder(
    folder, _new_tensors(params, dtype), max_bytes
  )
  index = folder / safetensors_io.INDEX
  return [*paths, *([index] if index.exists() else [])]


def write_adapter(
  adapter: Params,
  config: LoraConfig,
  base: str,
  folder: pathlib.Path,
  dtype: str,
) -> None:
  """Writes an adapter in PEFT's format.

  Args:
    adapter: nested dict of arrays.
    config: of the adapter.
    base: folder or name of its base model.
    folder: exists.
    dtype: as for `write_params`.

  Raises:
    ValueError: a finite weight is infinite in `dtype`.
  """
  tensors = _new_tensors(adapter, dtype)
  safetensors_io.write_file(folder / peft_io.WEIGHTS, tensors)
  table = peft_io.to_published(config, base)
  json_files.write_json(folder / peft_io.CONFIG, table)


def _new_tensors(params: Params, dtype: str) -> list[NewTensor]:
  stored = DTYPES[_STORED[dtype]]
  tensors = [
    NewTensor(
      name=name,
      dtype=stored,
      shape=stack.shape,
      make=lambda leaf=leaf, stack=stack, at=at: _tensor(
        leaf, stack, at, stored
      ),
    )
    for leaf, stack in stacks(params)
    for at, name in stack.names.items()
  ]
  return sorted(tensors, key=lambda tensor: _natural(tensor.name))


def _tensor(
  leaf: Array, stack: Stack, at: tuple[int, ...], dtype: np.dtype[Any]
) -> np.ndarray:
  """Stored tensor of a parameter, at an index of its stacked axes."""
  own = np.asarray(jax.device_get(leaf[at] if at else leaf))
  view = own.transpose([stack.order.index(axis) for axis in range(own.ndim)])
  tensor = view.reshape(stack.shape)
  with np.errstate(over='ignore'):
    cast = tensor.astype(dtype)
  if np.isinf(cast).any() and not np.isinf(tensor).any():
    raise ValueError(
      f'--dtype: {stack.names[at]} reaches {np.abs(tensor).max():.3g}, more'
      f' than {dtype} can hold; use bfloat16 or float32.'
    )
  return cast


def _natural(name: str) -> list[tuple[int, str]]:
  """Sort key that puts layer 10 after layer 9."""
  parts = re.split(r'(\d+)', name)
  pairs = itertools.zip_longest(parts[::2], parts[1::2], fillvalue='-1')
  return [
    key for text, number in pairs for key in ((0, text), (int(number), ''))
  ]


def _kept_config(
  experiment: Experiment, source: pathlib.Path, dtype: str
) -> dict[str, Any]:
  """config.json of the pretrained model, with dtype and end tokens updated."""
  published = json_files.read_json(source / hf_config.CONFIG)
  for key in _STORAGE:
    published.pop(key, None)
  keys = [key for key in ('dtype', 'torch_dtype') if key in published]
  published |= dict.fromkeys(keys or ['torch_dtype'], dtype)
  said = published.get('eos_token_id')
  said = said if isinstance(said, list) else [] if said is None else [said]
  if not set(said) <= set(experiment.sampling.eos_ids):
    # The run has another tokenizer.
    published |= {
      'eos_token_id': kept_files.ends(experiment),
      'pad_token_id': experiment.sampling.pad_id,
    }
  return published


def _new_config(experiment: Experiment, dtype: str) -> dict[str, Any]:
  model, sampling = experiment.model, experiment.sampling
  length = experiment.data.max_prompt_length + sampling.max_completion_length
  if model.rope_scaling == 'llama3':
    length = max(length, int(model.rope_original_length * model.rope_factor))
  published = hf_config.to_published(model, dtype, length)
  return published | {
    'eos_token_id': kept_files.ends(experiment),
    'pad_token_id': sampling.pad_id,
  }
