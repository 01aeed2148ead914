"""Files that a config needs and this machine lacks, and where to get them."""

from collections.abc import Iterator
import pathlib
from typing import Any

from dppo_jax import reasoning_tasks
from dppo_jax.data import downloads, mixture, sources
from dppo_jax.gguf_files import as_folder, header
from dppo_jax.runtime.config import follow
from dppo_jax.runtime.config.checks.data import LIBRARY, SAME, TASK
from dppo_jax.runtime.hub import hf_config, safetensors_io

_TOKENIZER = 'tokenizer.json'


def find_missing(config: dict[str, Any]) -> list[str]:
  """Sentences: config path, missing file, where to get it, where to put it.

  Args:
    config: plain nested dicts with the keys of configs/default.py.
  """
  config = _followed(config)
  return list(dict.fromkeys((*_models(config), *_files(config))))


def has_tokenizer(config: dict[str, Any]) -> bool:
  """Whether the tokenizer's file exists, or it is a task's word tokenizer."""
  folder = _followed(config)['data']['tokenizer']
  return not folder or as_folder.is_file(_folder(folder) / _TOKENIZER)


def _followed(config: dict[str, Any]) -> dict[str, Any]:
  found = follow.resolve(config)
  return {
    key: {**value, **found[key]} if key in found else value
    for key, value in config.items()
  }


def has_weights(folder: str) -> bool:
  """Whether a model's folder has weights; True for '', which needs none."""
  if header.is_file(_folder(folder)):
    return _folder(folder).is_file()
  names = (safetensors_io.SINGLE, safetensors_io.INDEX)
  return not folder or any((_folder(folder) / name).is_file() for name in names)


def _folder(path: str) -> pathlib.Path:
  return pathlib.Path(path).expanduser()


def _models(config: dict[str, Any]) -> Iterator[str]:
  scorer = config['rewards'].get('model', '')
  for path, folder, name in (
    ('model.pretrained', config['model']['pretrained'], hf_config.CONFIG),
    ('data.tokenizer', config['data']['tokenizer'], _TOKENIZER),
    ('rewards.model', scorer, hf_config.CONFIG),
  ):
    whole = _folder(folder)
    if folder and not as_folder.is_file(whole / name):
      what = f'no {name} in {whole}'
      if header.is_file(whole):
        what = f'no file {whole}'
      yield f'{path}: {what}; {downloads.advice(folder)}'


def _files(config: dict[str, Any]) -> Iterator[str]:
  data, evaluation = config['data'], config['evaluation']
  wanted = [(data['source'], 'train', data['files'], 'data.files')]
  if data['mixture']:
    wanted = [
      (row.source, 'train', row.files, 'data.mixture')
      for row in mixture.parse(data['mixture'])
    ]
  name, split, files = (evaluation[key] for key in ('source', 'split', 'files'))
  if name == SAME:
    name = data['source']
    files = files or (data['files'] if split == 'train' else '')
  for one in sources.split_names(name):
    wanted.append((one, split, files, 'evaluation.files'))
  for name, split, files, key in wanted:
    if name == TASK:
      continue
    try:
      if name == LIBRARY:
        reasoning_tasks.library()
        continue
      sources.locate(name, split, files, data['data_dir'], data['fields'], key)
    except ValueError as error:
      yield str(error)
