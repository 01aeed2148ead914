"""Adapters in the format of PEFT: adapter_config.json, one safetensors file.

A is stored as [r, inputs] and B as [outputs, r], under the names of the matrix
they adapt; `weight_names` has the table.
"""

from collections.abc import Mapping
import pathlib
from typing import Any

from dppo_jax.base import Params
from dppo_jax.models.lora import TARGETS, LoraConfig
from dppo_jax.runtime import pretrained, tensor_files

CONFIG = 'adapter_config.json'
WEIGHTS = 'adapter_model.safetensors'
# Keys that make an adapter something else, unless they hold one of these.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
  'peft_type': ('LORA',),
  'bias': (None, 'none'),
  'use_rslora': (None, False),
  'use_dora': (None, False),
  'rank_pattern': (None, {}),
  'alpha_pattern': (None, {}),
  'layers_to_transform': (None, []),
  'modules_to_save': (None, []),
}


def to_published(config: LoraConfig, base: str) -> dict[str, Any]:
  """adapter_config.json of an adapter.

  Args:
    config: its shape.
    base: folder or name of the model it belongs to.
  """
  return {
    'peft_type': 'LORA',
    'task_type': 'CAUSAL_LM',
    'base_model_name_or_path': base,
    'r': config.rank,
    'lora_alpha': config.alpha,
    'lora_dropout': 0.0,
    'target_modules': sorted(TARGETS[name][0] for name in config.targets),
    'bias': 'none',
    'fan_in_fan_out': False,
    'init_lora_weights': True,
    'inference_mode': True,
    'use_rslora': False,
    'use_dora': False,
  }


def load_adapter(
  folder: pathlib.Path, config: LoraConfig, like: Params
) -> Params:
  """Reads an adapter into its shardings.

  Args:
    folder: holds `CONFIG` and `WEIGHTS`.
    config: the shape that it must have.
    like: nested dict of `jax.ShapeDtypeStruct`, a sharding each; stored values
      are cast to its dtypes.

  Raises:
    ValueError: a file is missing or damaged, or the adapter is of another kind
      or shape.
  """
  problems = list(_differences(folder, config))
  if problems:
    listed = '\n'.join(f'  {problem}' for problem in problems)
    raise ValueError(
      f'{folder / CONFIG} is not the adapter of section lora:\n{listed}\n'
      'Set lora.rank, lora.alpha and lora.targets to what it has; other kinds'
      ' of adapters cannot be read.'
    )
  path = folder / WEIGHTS
  if not path.is_file():
    raise ValueError(
      f'{path}: missing; save the adapter as safetensors (pickles are never'
      ' loaded).'
    )
  return pretrained.place_tensors(folder, like, tensor_files.read_header(path))


def _differences(folder: pathlib.Path, config: LoraConfig) -> list[str]:
  """What adapter_config.json says, where it says something else."""
  stored = tensor_files.read_json(folder / CONFIG)
  found = [
    f'{key} is {stored[key]!r}; {" or ".join(map(repr, plain))} can be read.'
    for key, plain in _PLAIN.items()
    if key in stored and stored[key] not in plain
  ]
  wanted = to_published(config, '')
  for key in ('r', 'lora_alpha', 'target_modules'):
    own, other = wanted[key], stored[key] if key in stored else None
    if isinstance(other, list):
      other = sorted(other)
    if own != other:
      found.append(f'{key} is {other!r}, and section lora says {own!r}.')
  return found
