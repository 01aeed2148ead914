"""A GGUF file in place of a Hugging Face folder.

The path of a file in that folder, FILE.gguf/config.json, names a table that is
made of the metadata. Readers of folders ask here first, and know no more of it.
"""

from collections.abc import Callable
import os
import pathlib
from typing import Any

from dppo_jax.gguf_files import header as header_lib
from dppo_jax.gguf_files import shapes, vocabulary


def _config(header: header_lib.Header) -> dict[str, Any]:
  return {**shapes.config_json(header), **vocabulary.ids_json(header)}


# File of a folder -> what makes it.
TABLES: dict[str, Callable[[header_lib.Header], dict[str, Any]]] = {
  'config.json': _config,
  'generation_config.json': vocabulary.ids_json,
  'tokenizer.json': vocabulary.tokenizer_json,
  'tokenizer_config.json': vocabulary.tokenizer_config_json,
}


def is_inside(path: str | os.PathLike[str]) -> bool:
  """Whether a path names a table of a GGUF file.

  >>> is_inside('model.gguf/config.json'), is_inside('model/config.json')
  (True, False)
  """
  path = pathlib.Path(path)
  return path.name in TABLES and header_lib.is_file(path.parent)


def is_file(path: str | os.PathLike[str]) -> bool:
  """Whether there is a file, or a table of a GGUF file that is there."""
  path = pathlib.Path(path)
  if header_lib.is_file(path.parent):
    return path.name in TABLES and path.parent.is_file()
  return path.is_file()


def read_table(path: str | os.PathLike[str]) -> dict[str, Any]:
  """The table that such a path names.

  Raises:
    ValueError: the file is missing, damaged or unsupported; one line that names
      the file and the key.
  """
  path = pathlib.Path(path)
  return TABLES[path.name](header_lib.read(path.parent))
