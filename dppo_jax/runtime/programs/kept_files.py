"""Files of pretrained models that a run keeps, and that its export needs.

The folders, or GGUF files, that a config names may change or go; a run keeps
the config.json of its model and every file of its tokenizer, and goes on with
no others.
"""

from collections.abc import Iterator
import dataclasses
import filecmp
import pathlib
import shutil
from typing import Any

from dppo_jax.gguf_files import as_folder, header
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.hub import hf_config, json_files
from dppo_jax.runtime.hub.published_keys import TOKENIZER_SETTINGS

# Folders of a run.
MODEL, TOKENIZER = 'pretrained', 'tokenizer'
GENERATION = 'generation_config.json'
TEMPLATE = 'chat_template.jinja'
_TEMPLATE_KEY = 'chat_template'
_TOKENIZER_FILES = (
  'added_tokens.json',
  TEMPLATE,
  'merges.txt',
  'special_tokens_map.json',
  'tokenizer.json',
  'tokenizer.model',
  TOKENIZER_SETTINGS,
  'vocab.json',
)
# Those that say which token ends a completion, the first one that does.
_ENDS = (GENERATION, hf_config.CONFIG)
_PLAIN = '{prompt}'  # A prompt template that adds nothing.


def keep(experiment: Experiment, workdir: pathlib.Path) -> None:
  """Copies what is not kept yet, and compares what is.

  Args:
    experiment: the run.
    workdir: its folder.

  Raises:
    ValueError: the tokenizer is not the one that the run began with.
  """
  folder, kept = _folder(experiment.model.pretrained), workdir / MODEL
  if folder is not None and not kept.exists():
    _copy(folder, kept, (hf_config.CONFIG, GENERATION))
  folder, kept = _folder(experiment.data.tokenizer), workdir / TOKENIZER
  if folder is None:
    return
  if not kept.exists():
    _copy(folder, kept, (*_TOKENIZER_FILES, *_ENDS))
    return
  for name in _TOKENIZER_FILES:
    if not _equal(folder / name, kept / name):
      raise _changed(folder / name, kept / name)
  if _ends(folder) != _ends(kept):
    raise _changed(folder / GENERATION, kept / GENERATION)


def _changed(path: pathlib.Path, kept: pathlib.Path) -> ValueError:
  return ValueError(
    f'data.tokenizer: {path} is not what the run began with, which is'
    f' {kept}; put that back, or choose another --workdir.'
  )


def _folder(named: str) -> pathlib.Path | None:
  """A folder or GGUF file that a config names, where there is one."""
  folder = pathlib.Path(named).expanduser()
  there = folder.is_dir() or (header.is_file(folder) and folder.is_file())
  return folder if named and there else None


def _copy(
  folder: pathlib.Path, target: pathlib.Path, names: tuple[str, ...]
) -> None:
  """Copies the files that are there; the folder has its name once it is."""
  unfinished = target.with_name(f'.{target.name}.tmp')
  shutil.rmtree(unfinished, ignore_errors=True)
  unfinished.mkdir()
  for name in names:
    if as_folder.is_inside(folder / name):
      table = json_files.read_json(folder / name)
      json_files.write_json(unfinished / name, table)
    elif (folder / name).is_file():
      shutil.copyfile(folder / name, unfinished / name)
  unfinished.replace(target)


def _equal(one: pathlib.Path, other: pathlib.Path) -> bool:
  if as_folder.is_inside(one) and other.is_file():
    return json_files.read_json(one) == json_files.read_json(other)
  if one.is_file() and other.is_file():
    return filecmp.cmp(one, other, shallow=False)
  return as_folder.is_file(one) == other.is_file()


def _ends(folder: pathlib.Path) -> Any:
  for name in _ENDS:
    if as_folder.is_file(folder / name):
      found = json_files.read_json(folder / name).get('eos_token_id')
      if found is not None:
        return found
  return None


def find_tokenizer(
  experiment: Experiment, workdir: pathlib.Path
) -> pathlib.Path | None:
  """Folder of the tokenizer that was trained with; None: words of a task.

  Raises:
    ValueError: the run kept none, and the folder of its config is gone.
  """
  named = experiment.data.tokenizer
  if not named:
    return None
  older = workdir / MODEL  # Once kept there, where it was the model's own.
  if (workdir / TOKENIZER).is_dir():
    return workdir / TOKENIZER
  if (
    named == experiment.model.pretrained
    and (older / 'tokenizer.json').is_file()
  ):
    return older
  folder = _folder(named)
  if folder is None:
    raise ValueError(
      f'data.tokenizer: {named} is gone, and {workdir} kept no copy of it; put'
      ' it back.'
    )
  return folder


def write_tokenizer(
  experiment: Experiment, folder: pathlib.Path | None, out: pathlib.Path
) -> None:
  """Writes the files of a tokenizer, with the chat template if it was used.

  Args:
    experiment: the run.
    folder: of `find_tokenizer`.
    out: exists.
  """
  if folder is None:
    return
  for name in _TOKENIZER_FILES:
    path = folder / name
    if not path.is_file():
      continue
    if experiment.data.chat_template or name not in (
      TEMPLATE,
      TOKENIZER_SETTINGS,
    ):
      shutil.copyfile(path, out / name)
    elif name == TOKENIZER_SETTINGS:
      settings = json_files.read_json(path)
      if _TEMPLATE_KEY in settings:
        del settings[_TEMPLATE_KEY]
        json_files.write_json(out / name, settings)
      else:
        shutil.copyfile(path, out / name)


def generation_config(
  experiment: Experiment, published: dict[str, Any]
) -> dict[str, Any]:
  """generation_config.json: end tokens and sampling settings of the training.

  What a published one holds besides, penalties and a nucleus say, was not.

  Args:
    experiment: the run.
    published: config.json of the export.
  """
  sampling = experiment.sampling
  found = {
    'do_sample': True,
    'temperature': experiment.loss.temperature,
    'top_p': sampling.top_p,
    'top_k': 0,  # None; without the key there would be 50.
    **(dataclasses.asdict(sampling.support) if sampling.support else {}),
    'eos_token_id': ends(experiment),
    'pad_token_id': sampling.pad_id,
  }
  if published.get('bos_token_id') is not None:
    found['bos_token_id'] = published['bos_token_id']
  return found


def ends(experiment: Experiment) -> int | list[int]:
  """eos_token_id of the run: a number, or several."""
  ids = [int(i) for i in experiment.sampling.eos_ids]
  return ids[0] if len(ids) == 1 else ids


def remarks(experiment: Experiment, workdir: pathlib.Path) -> Iterator[str]:
  """Lines on how a run showed its prompts that no file of an export can hold.

  Args:
    experiment: the run.
    workdir: its folder.
  """
  data = experiment.data
  folder = find_tokenizer(experiment, workdir)
  if folder is None:
    yield (
      f'no tokenizer is written: the run has the words of task {data.task} and'
      ' none of a model (data.tokenizer).'
    )
  elif workdir not in folder.parents:
    yield (
      f'the run kept no copy of its tokenizer; it is that of {folder}, as it is'
      ' now.'
    )
  if folder is not None and not data.chat_template:
    yield (
      'no chat template is written: the run was trained without one'
      ' (data.chat_template=False).'
    )
  if data.prompt_template != _PLAIN:
    yield f'prompts were written into {data.prompt_template!r}.'
  if data.system_prompt:
    yield f'prompts came after the system prompt {data.system_prompt!r}.'
  if experiment.sampling.stop_strings:
    shown = ', '.join(map(repr, experiment.sampling.stop_strings))
    yield f'completions ended at {shown}, too.'
