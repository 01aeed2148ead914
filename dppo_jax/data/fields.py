"""Fields of a row: prompts built from several, answers, and extra fields.

Extra fields stay in the example for its verifier: the numbers of a countdown,
the tests of a program.
"""

from collections.abc import Mapping, Sequence
import json
import re
from typing import Any

from dppo_jax.data import record_files

EVERY = '*'  # In data.fields.extra: all fields of a row.
MAX_FIELD_LENGTH = 4_000  # Characters of JSON of a field not named there.
MAX_ROW_LENGTH = 16_000  # Of all of them together.
MAX_NAMED_LENGTH = 1_000_000  # Of a field named in data.fields.extra.
# Reserved keys of an example.
OWN = ('example_id', 'prompt', 'answer', 'component')

_FIELD = re.compile(r'\{([^{}]+)\}')


def is_template(text: str) -> bool:
  """Whether a prompt is a template, '{Body} {Question}'; else it is a path."""
  return _FIELD.search(text) is not None


def columns(text: str) -> list[str]:
  """Parquet columns read by a path or a template."""
  paths = _FIELD.findall(text) if is_template(text) else [text]
  return [
    name for path in paths for name in (path, record_files.split_path(path)[0])
  ]


def fill(row: record_files.RawRecord, template: str) -> str | None:
  """Template filled with the fields of a row; None if the row lacks one.

  A list is written with commas between its entries.

  >>> fill(record_files.RawRecord({'a': 'Add', 'b': [1, 2]}, ''), '{a}: {b}')
  'Add: 1, 2'

  Raises:
    ValueError: a field is neither a text, a number nor a list of them.
  """
  values = {}
  for path in _FIELD.findall(template):
    value = record_files.lookup(row, path)
    if value is None:
      return None
    values[path] = text_of(value, row, 'prompt').strip()
  return _FIELD.sub(lambda found: values[found[1]], template).strip()


def text_of(value: Any, row: record_files.RawRecord, meaning: str) -> str:
  """Text of a value: text, number (3.0 is '3'), or a list of them with commas.

  Args:
    value: from the row.
    row: for error messages.
    meaning: a key of data.fields, for error messages.

  Raises:
    ValueError: the value is something else.
  """
  if isinstance(value, list) and value:
    return ', '.join(text_of(each, row, meaning) for each in value)
  if isinstance(value, float) and value.is_integer():
    value = int(value)
  if isinstance(value, bool) or not isinstance(value, (str, int, float)):
    kind = 'null' if value is None else f'a {type(value).__name__}'
    inner = ' without entries' if value == [] else ''
    if isinstance(value, Mapping):
      inner = f' with {", ".join(map(str, value))}'
    hint = ' Name one by its path.' if isinstance(value, Mapping) else ''
    raise ValueError(
      f'data.fields.{meaning}: {row.where} holds {kind}{inner} there; needs a'
      f' text, a number, or a list of them.{hint}'
    )
  return str(value)


def parse_extra(text: str) -> tuple[tuple[str, str], ...]:
  """Names and paths of data.fields.extra.

  >>> parse_extra('target, numbers=metadata.nums')
  (('target', 'target'), ('numbers', 'metadata.nums'))
  >>> parse_extra('*')
  (('*', '*'),)

  Raises:
    ValueError: an entry is empty, or its name is one of `OWN`.
  """
  found = []
  for entry in text.split(',') if text.strip() else ():
    name, equals, path = (part.strip() for part in entry.partition('='))
    path = path if equals else name
    name = name if equals else record_files.split_path(path)[-1]
    if not name or not path:
      raise ValueError(
        f'data.fields.extra: got {text!r}; fields with commas between them,'
        f" 'NAME=PATH' for another name, {EVERY!r} for all."
      )
    if name in OWN:
      raise ValueError(
        f'data.fields.extra: {name!r} is reserved; give the field another name:'
        f" 'row_{name}={path}'."
      )
    found.append((name, path))
  return tuple(found)


def keep_extra(
  row: record_files.RawRecord,
  extra: Sequence[tuple[str, str]],
  own: Sequence[str],
) -> tuple[dict[str, Any], list[str]]:
  """Extra fields of a row that are kept in its example.

  Args:
    row: of a file.
    extra: result of `parse_extra`.
    own: top-level fields that the example already holds.

  Returns:
    Fields by name, JSON values; and the names of dropped fields: too long
    (`MAX_FIELD_LENGTH`, `MAX_ROW_LENGTH`), or not JSON.

  Raises:
    ValueError: a named field is missing, too long, or not JSON.
  """
  kept: dict[str, Any] = {}
  for name, path in extra:
    if path == EVERY:
      continue
    value = record_files.lookup(row, path)
    length = None if value is None else _length(value)
    if length is None or length > MAX_NAMED_LENGTH:
      what = 'has no field' if value is None else 'cannot keep the field'
      raise ValueError(
        f'data.fields.extra: {row.where} {what} {path!r}; texts, numbers, lists'
        f' and objects of at most {MAX_NAMED_LENGTH:,} characters are kept; its'
        f' fields are {record_files.field_names(row)}.'
      )
    kept[name] = value
  if (EVERY, EVERY) not in extra:
    return kept, []
  left_out, total = [], 0
  for name, value in row.values.items():
    if name in OWN or name in own or name in kept or value is None:
      continue
    length = _length(value)
    if length is None or length > min(MAX_FIELD_LENGTH, MAX_ROW_LENGTH - total):
      left_out.append(name)
      continue
    kept[name] = value
    total += length
  return kept, left_out


def _length(value: Any) -> int | None:
  """Characters of a value as JSON; None if it is not JSON."""
  try:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    text.encode()
  except (TypeError, ValueError, RecursionError):
    return None
  return len(text)


def named(fields: Mapping[str, str]) -> dict[str, str]:
  """Fields with a non-empty path."""
  return {key: path for key, path in fields.items() if path}
