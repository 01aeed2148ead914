"""Checksums of the files of a folder, checked before it is read."""

from collections.abc import Iterable
from concurrent import futures
import json
import pathlib
import zlib

from dppo_jax import bounded_json
from dppo_jax.runtime.storage.files import naming

FILE_NAME = 'checksums.json'
_CHUNK = 2**24  # Bytes read at a time.


def write(folder: pathlib.Path, parts: Iterable[str]) -> None:
  """Writes the CRC-32 of every file below `parts` to checksums.json.

  Args:
    folder: of the list.
    parts: its sub-folders, complete.
  """
  text = json.dumps(_checksums(folder, parts), indent=0)
  with naming(folder / FILE_NAME):
    (folder / FILE_NAME).write_text(text)


def check(folder: pathlib.Path, parts: Iterable[str]) -> None:
  """Raises unless every file is as `write` listed it.

  Args:
    folder: of the list.
    parts: the listed sub-folders.

  Raises:
    FileNotFoundError: if there is no list.
    ValueError: if the list is not readable, or files differ; names them.
  """
  expected = bounded_json.read_object(folder / FILE_NAME)
  found = _checksums(folder, parts)
  wrong = [
    f'{name} {"has changed" if name in found else "is missing"}'
    for name, value in expected.items()
    if found.get(name) != value
  ]
  if wrong:
    more = f', and {len(wrong) - 3} more' if len(wrong) > 3 else ''
    raise ValueError(', '.join(wrong[:3]) + more)


def _checksums(folder: pathlib.Path, parts: Iterable[str]) -> dict[str, int]:
  files = sorted(
    path
    for part in parts
    for path in (folder / part).rglob('*')
    if path.is_file()
  )
  # Reading and zlib both release the interpreter lock.
  with futures.ThreadPoolExecutor() as pool:
    values = list(pool.map(_checksum, files))
  return {
    path.relative_to(folder).as_posix(): value
    for path, value in zip(files, values, strict=True)
  }


def _checksum(path: pathlib.Path) -> int:
  value = 0
  with path.open('rb') as file:
    while chunk := file.read(_CHUNK):
      value = zlib.crc32(chunk, value)
  return value
