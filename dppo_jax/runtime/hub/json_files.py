"""JSON tables of published models: read within bounds, written as they are.

Where a GGUF file stands for a folder, its metadata make the table.
"""

import collections
from collections.abc import Mapping, Sequence
import json
import pathlib
from typing import Any

from dppo_jax import bounded_json
from dppo_jax.data import downloads
from dppo_jax.gguf_files import as_folder
from dppo_jax.runtime.storage.files import write_atomically


def read_json(path: pathlib.Path, *, unique: bool = False) -> dict[str, Any]:
  """JSON object of a file.

  Args:
    path: of the file, or of a table of a GGUF file.
    unique: whether duplicate names are refused; otherwise the last one counts,
      as in other readers.

  Raises:
    ValueError: it is missing or damaged.
  """
  if as_folder.is_inside(path):
    if not path.parent.is_file():
      raise ValueError(
        f'{path.parent}: missing; {downloads.advice(path.parent)}'
      )
    return as_folder.read_table(path)
  try:
    found = bounded_json.read(
      path, object_pairs_hook=table_of_unique if unique else None
    )
  except FileNotFoundError:
    raise ValueError(
      f'{path}: missing; {downloads.advice(path.parent)}'
    ) from None
  except (OSError, ValueError) as error:
    raise ValueError(f'{path}: {error}; download it again.') from None
  if not isinstance(found, dict):
    raise ValueError(f'{path}: holds no table; download it again.')
  return found


def table_of_unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
  """JSON object; raises on duplicate names, of which readers differ."""
  table = dict(pairs)
  if len(table) < len(pairs):
    counts = collections.Counter(name for name, _ in pairs)
    raise ValueError(f'it has {counts.most_common(1)[0][0]!r} twice')
  return table


def write_json(path: pathlib.Path, table: Mapping[str, Any]) -> None:
  """Writes a JSON object as transformers does: sorted, indented by two."""
  text = json.dumps(table, indent=2, sort_keys=True, ensure_ascii=False)
  write_atomically(path, text + '\n')
