"""Settings that follow others: the tokenizer of a model, the warm start."""

from collections.abc import Mapping
import pathlib
from typing import Any

from dppo_jax.gguf_files import as_folder
from dppo_jax.runtime.config.checks.data import TASK

_TOKENIZER = 'tokenizer.json'
WARM_START = 150  # Steps of SFT before a run of this package's own tasks.
BY_DATA = -1  # Of sft.num_steps.


def resolve(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """Values of keys that were left to others, by section and key.

  `data.tokenizer` is that of `model.pretrained`, where that has one; then
  `sft.num_steps` is `WARM_START` if demonstrations can be made, for the tasks
  of this package in their own words, and 0 otherwise.

  Args:
    config: plain nested dicts with the keys of configs/default.py.
  """
  data, pretrained = config['data'], config['model']['pretrained']
  found: dict[str, dict[str, Any]] = {}
  folder = pathlib.Path(pretrained).expanduser()
  tokenizer = data['tokenizer']
  if pretrained and not tokenizer and as_folder.is_file(folder / _TOKENIZER):
    tokenizer = pretrained
    found['data'] = {'tokenizer': tokenizer}
  if config['sft']['num_steps'] == BY_DATA:
    own = data['source'] == TASK and not tokenizer and not data['mixture']
    found['sft'] = {'num_steps': WARM_START if own else 0}
  return found
