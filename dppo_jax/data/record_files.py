"""Rows of JSON-lines, JSON and parquet files, each with its file and line."""

from collections.abc import Iterator, Mapping, Sequence
import glob
import json
import pathlib
import re
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from dppo_jax import bounded_json

SUFFIXES = ('.jsonl', '.json', '.parquet')
_BATCH_SIZE = 4096  # Rows of a parquet file held at once.
# Bytes of a row of .jsonl, and of a .json, which is held as a whole.
_MAX_LINE = 64 * 2**20
_MAX_JSON = 2 * 2**30
_MAX_CONTAINERS = 50_000_000  # Lists and objects in a .json.


class RawRecord(NamedTuple):
  """A row and its location, for error messages.

  Attributes:
    values: by field.
    where: 'FILE, line 3'.
    unread: further fields of its file, which were not read.
  """

  values: Mapping[str, Any]
  where: str
  unread: tuple[str, ...] = ()


def find_files(
  pattern: str, folder: pathlib.Path, split: str
) -> list[pathlib.Path]:
  """Files of a split, in a fixed order.

  Args:
    pattern: the user's path or glob, or '' for the files in `folder`.
    folder: default folder of this source.
    split: keeps the files below `folder` whose path has it as a word
      ('algebra/train-0.parquet'); '' keeps all.

  Returns:
    Paths, sorted; possibly none.

  Raises:
    ValueError: a file has an unknown suffix.
  """
  if pattern:
    named = str(pathlib.Path(pattern).expanduser())
    found = [pathlib.Path(name) for name in glob.glob(named, recursive=True)]
    # A file name may itself contain glob characters.
    exact = pathlib.Path(named)
    found = sorted({exact} if exact.is_file() else set(found))
    for path in found:
      if path.is_file() and path.suffix not in SUFFIXES:
        raise ValueError(
          f'data.files: {str(path)!r} ends in {path.suffix!r}; known:'
          f' {", ".join(SUFFIXES)}.'
        )
    return [path for path in found if path.is_file()]
  word = re.compile(rf'(?<![a-zA-Z_]){re.escape(split)}(?![a-zA-Z_])')
  return sorted(
    path
    for path in folder.glob('**/*')
    if path.suffix in SUFFIXES
    # Below the folder, which itself may be in ~/.cache.
    and not any(part[0] == '.' for part in path.relative_to(folder).parts)
    and (not split or word.search(path.relative_to(folder).as_posix()))
  )


def read_rows(
  path: pathlib.Path, columns: Sequence[str] | None
) -> Iterator[RawRecord]:
  """Rows of one file, in order.

  Args:
    path: with one of `SUFFIXES`.
    columns: top-level fields to read from a parquet file; missing ones are
      skipped. None for all except those with bytes, such as images.

  Raises:
    ValueError: the file cannot be read; the message has the line that is not
      UTF-8 or not a JSON object.
  """
  try:
    if path.suffix == '.parquet':
      yield from _read_parquet(path, columns)
    elif path.suffix == '.jsonl':
      yield from _read_lines(path)
    else:
      yield from _read_json(path)
  except (OSError, pa.ArrowException) as error:
    raise ValueError(
      f'data.files: cannot read {str(path)!r} ({error}); fetch it again.'
    ) from error


def lookup(row: RawRecord, path: str) -> Any:
  """Value at a path; None if there is none.

  Args:
    row: of a file.
    path: 'key', 'key.inner', and for a list entry its index from 0: 'key.0' or
      'key[0]'; -1 is the last.

  >>> lookup(RawRecord({'a': [{'b': 7}]}, ''), 'a[0].b')
  7
  """
  if path in row.values:
    return row.values[path]
  value: Any = row.values
  for key in split_path(path):
    if isinstance(value, Mapping):
      value = value.get(key)
    elif isinstance(value, list) and re.fullmatch(r'-?[0-9]{1,6}', key):
      index = int(key)
      inside = -len(value) <= index < len(value)
      value = value[index] if inside else None
    else:
      return None
  return value


def split_path(path: str) -> list[str]:
  """Keys of a path, 'a[0].b' as 'a.0.b'; the first is a column."""
  return re.sub(r'\[(-?[0-9]+)\]', r'.\1', path).split('.')


def holds_null(row: RawRecord, path: str) -> bool:
  """Whether the field exists and is null."""
  if path in row.values:
    return row.values[path] is None
  outer, _, key = path.rpartition('.')
  value = lookup(row, outer) if outer else None
  return isinstance(value, Mapping) and key in value and value[key] is None


def field_names(row: RawRecord) -> str:
  """Field names of a row, inner ones by path, for error messages."""
  names = []
  for key, value in row.values.items():
    inner = value if isinstance(value, Mapping) else {}
    names += [f'{key}.{name}' for name in inner] or [key]
  return ', '.join((*names, *row.unread)) or 'none'


def _decode(data: bytes, where: str) -> str:
  try:
    return data.decode()
  except UnicodeDecodeError as error:
    raise ValueError(
      f'data.files: {where} is not UTF-8 (byte {data[error.start]:#04x} after'
      f' {error.start} bytes); convert the file.'
    ) from error


def _object(text: str, where: str, hint: str = '') -> Any:
  try:
    return bounded_json.parse(text, max_containers=_MAX_CONTAINERS)
  except ValueError as error:
    raise ValueError(
      f'data.files: {where} is not JSON ({error}){hint}.'
    ) from error


def _row(values: Any, where: str, *, hint: str = '') -> RawRecord:
  if not isinstance(values, dict):
    raise ValueError(
      f'data.files: {where} is a {type(values).__name__}; a row is an object'
      f' with fields{hint}.'
    )
  # JSON escapes can encode a lone surrogate, which UTF-8 cannot.
  try:
    json.dumps(values, ensure_ascii=False).encode()
  except UnicodeEncodeError as error:
    half = ord(error.object[error.start])
    raise ValueError(
      f'data.files: {where} holds half a character (a lone surrogate,'
      f' \\u{half:04x}); write the full surrogate pair, or remove the row.'
    ) from error
  return RawRecord(values, where)


def _read_lines(path: pathlib.Path) -> Iterator[RawRecord]:
  with path.open('rb') as file:
    lines = iter(lambda: file.readline(_MAX_LINE + 1), b'')
    for number, line in enumerate(lines, 1):
      where = f'{path}, line {number}'
      if len(line) > _MAX_LINE:
        raise ValueError(
          f'data.files: {where} has more than {_MAX_LINE:,} bytes; a .jsonl'
          ' file has one row per line: shorten or remove it.'
        )
      text = _decode(line.removeprefix(b'\xef\xbb\xbf'), where)
      if not text.strip():
        continue
      spread = number == 1 and text.strip() in ('[', '{')
      found = _object(
        text,
        where,
        '; this is JSON over several lines: name the file .json'
        if spread
        else '; a .jsonl file has one object per line',
      )
      many = isinstance(found, list)
      yield _row(
        found, where, hint='; name a list of rows .json' if many else ''
      )


def _read_json(path: pathlib.Path) -> Iterator[RawRecord]:
  """Rows of one object, as MATH was first published, or of a list."""
  try:
    data = bounded_json.read_bytes(path, _MAX_JSON)
  except ValueError as error:
    raise ValueError(
      f'data.files: {path} has {error}; write it as .jsonl or .parquet, which'
      ' are read row by row.'
    ) from error
  for number, line in enumerate(data.splitlines(), 1):
    _decode(line, f'{path}, line {number}')
  text = data.decode('utf-8-sig')
  hint = ''
  if _is_object(text.lstrip().partition('\n')[0]):
    hint = '; these are lines of JSON: name the file .jsonl'
  found = _object(text, str(path), hint)
  if not isinstance(found, list):
    yield _row(found, str(path))
    return
  for number, values in enumerate(found, 1):
    where = f'{path}, row {number}'
    yield _row(values, where)


def _is_object(text: str) -> bool:
  try:
    return isinstance(bounded_json.parse(text), dict)
  except ValueError:
    return False


def _read_parquet(
  path: pathlib.Path, columns: Sequence[str] | None
) -> Iterator[RawRecord]:
  with parquet.ParquetFile(path) as file:
    there = [
      field.name
      for field in file.schema_arrow
      if (
        not _holds_bytes(field.type)
        if columns is None
        else field.name in columns
      )
    ]
    unread = tuple(
      name for name in file.schema_arrow.names if there and name not in there
    )
    number = 0
    # Without any wanted column, read all: errors then list the file's fields.
    batches = file.iter_batches(_BATCH_SIZE, columns=there or None)
    for batch in batches:
      try:
        found = batch.to_pylist()
      except UnicodeDecodeError as error:
        last = number + batch.num_rows
        raise ValueError(
          f'data.files: {path}, a row from {number + 1} to {last}, holds text'
          f' that is not UTF-8 ({error.reason}); write the file again.'
        ) from error
      for values in found:
        number += 1
        yield RawRecord(values, f'{path}, row {number}', unread)


def _holds_bytes(kind: pa.DataType) -> bool:
  """Whether a column, or any nested field, has bytes."""
  if pa.types.is_nested(kind):
    inner = (kind.field(i).type for i in range(kind.num_fields))
    return any(map(_holds_bytes, inner))
  return (
    pa.types.is_binary(kind)
    or pa.types.is_large_binary(kind)
    or pa.types.is_fixed_size_binary(kind)
  )
