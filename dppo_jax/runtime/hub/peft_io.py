"""Adapters in PEFT format: adapter_config.json and one safetensors file.

A is stored as [r, inputs] and B as [outputs, r], named after the matrix that
they adapt; see `weight_map.TABLE`.
"""

import math
import pathlib
from typing import Any

from dppo_jax.base import Params
from dppo_jax.models.lora import TARGETS, LoraConfig
from dppo_jax.runtime.hub import (
  json_files,
  load_weights,
  published_keys,
  safetensors_io,
)

CONFIG = 'adapter_config.json'
WEIGHTS = 'adapter_model.safetensors'
_CHANGES_BASE = (
  ' Such an adapter belongs to a base that its start changed; save it with'
  ' path_initial_model_for_weight_conversion, or merge it first.'
)


def to_published(config: LoraConfig, base: str) -> dict[str, Any]:
  """adapter_config.json of an adapter.

  Args:
    config: of the adapter.
    base: folder or name of its base model.
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
  """Sharded adapter from a folder in PEFT format.

  Args:
    folder: with `CONFIG` and `WEIGHTS`.
    config: expected rank, alpha and targets.
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
      'Set lora.rank, lora.alpha and lora.targets to what it has; adapters of'
      ' another kind are to be merged into their base, which can then be'
      ' model.pretrained.'
    )
  path = folder / WEIGHTS
  if not path.is_file():
    raise ValueError(
      f'{path}: missing; save the adapter as safetensors (pickles are never'
      ' loaded).'
    )
  return load_weights.place_tensors(
    folder, like, safetensors_io.read_header(path)
  )


def _differences(folder: pathlib.Path, config: LoraConfig) -> list[str]:
  """Differences between adapter_config.json and the config."""
  stored = json_files.read_json(folder / CONFIG)
  found = [
    text + _CHANGES_BASE if text.startswith('init_lora_weights') else text
    for text in published_keys.ADAPTER.problems(stored)
  ]
  wanted = to_published(config, '')
  for key in ('r', 'target_modules'):
    own, other = wanted[key], stored[key] if key in stored else None
    if isinstance(other, list):
      other = sorted(map(str, other))
    if own != other:
      found.append(f'{key} is {other!r}, and section lora says {own!r}.')
  alpha, text = stored.get('lora_alpha'), repr(stored.get('lora_alpha'))
  if stored.get('use_rslora') and isinstance(alpha, (int, float)):
    # PEFT scales by alpha / sqrt(r), this package by alpha / r.
    alpha *= math.sqrt(config.rank)
    text += f' with use_rslora, that is {alpha:.10g} here'
  if not isinstance(alpha, (int, float)) or not math.isclose(
    alpha, config.alpha, rel_tol=1e-6
  ):
    found.append(f'lora_alpha is {text}, and section lora says {config.alpha}.')
  return found
