"""JSON of files that somebody else wrote: bounded in size and in depth.

A text of nothing but brackets takes a hundred times its size in memory, and a
deeply nested value exhausts the stack of whoever walks it later. Every problem
is a ValueError, so that a reader handles one kind of error.
"""

from collections.abc import Callable, Sequence
import json
import pathlib
from typing import Any

MAX_BYTES = 100 * 2**20  # Published tokenizers and indices have up to 35 MB.
MAX_DEPTH = 64  # Lists and objects in each other; published files: 12.
# Lists and objects in all; published files have up to 300,000.
MAX_CONTAINERS = 2_000_000

Pairs = Sequence[tuple[str, Any]]


def parse(
  text: str | bytes | bytearray,
  *,
  max_containers: int = MAX_CONTAINERS,
  object_pairs_hook: Callable[[Pairs], Any] | None = None,
) -> Any:
  """Value of a JSON text.

  Args:
    text: str, or bytes in UTF-8.
    max_containers: lists and objects that the text may open; brackets inside
      strings count, too.
    object_pairs_hook: makes an object from its pairs, as for `json.loads`.

  Raises:
    ValueError: the text is not JSON, not UTF-8, or exceeds a bound.
  """
  if not isinstance(text, str):
    text = bytes(text).decode('utf-8')
  opened = text.count('[') + text.count('{')
  if opened > max_containers:
    raise ValueError(f'more than {max_containers:,} lists and objects')
  try:
    value = json.loads(text, object_pairs_hook=object_pairs_hook)
  except RecursionError:
    raise ValueError(_too_deep()) from None
  if opened > MAX_DEPTH:  # Else it cannot be deeper than that.
    _check_depth(value)
  return value


def read(
  path: pathlib.Path,
  *,
  max_bytes: int = MAX_BYTES,
  max_containers: int = MAX_CONTAINERS,
  object_pairs_hook: Callable[[Pairs], Any] | None = None,
) -> Any:
  """Value of a JSON file.

  Args:
    path: of the file.
    max_bytes: size that it may have; no more is read.
    max_containers: as for `parse`.
    object_pairs_hook: as for `parse`.

  Raises:
    OSError: it cannot be read.
    ValueError: as for `parse`, or it is too large.
  """
  return parse(
    read_bytes(path, max_bytes),
    max_containers=max_containers,
    object_pairs_hook=object_pairs_hook,
  )


def read_object(path: pathlib.Path) -> dict[str, Any]:
  """Object of a JSON file.

  Raises:
    OSError: it cannot be read.
    ValueError: as for `read`, or the file holds another kind of value.
  """
  value = read(path)
  if not isinstance(value, dict):
    raise ValueError(f'it holds {kind(value)}, not an object')
  return value


def read_bytes(path: pathlib.Path, max_bytes: int = MAX_BYTES) -> bytes:
  """Bytes of a file.

  Raises:
    OSError: it cannot be read.
    ValueError: it is no regular file, or has more bytes than it may.
  """
  # Opening a named pipe would wait for its writer.
  if path.exists() and not path.is_file():
    raise ValueError('no regular file')
  with path.open('rb') as file:
    found = file.read(max_bytes + 1)
  if len(found) > max_bytes:
    raise ValueError(f'more than {max_bytes:,} bytes')
  return found


def kind(value: Any) -> str:
  """JSON name of a value's type, with its article.

  >>> kind(None), kind([1]), kind(True)
  ('null', 'a list', 'a boolean')
  """
  if value is None:
    return 'null'
  names = {dict: 'an object', list: 'a list', str: 'a string'}
  names[bool] = 'a boolean'
  return names.get(type(value), 'a number')


def _too_deep() -> str:
  return f'more than {MAX_DEPTH} lists and objects in each other'


def _check_depth(value: Any) -> None:
  level = [value]
  for _ in range(MAX_DEPTH):
    inner: list[Any] = []
    for each in level:
      if isinstance(each, dict):
        inner.extend(v for v in each.values() if isinstance(v, dict | list))
      elif isinstance(each, list):
        inner.extend(v for v in each if isinstance(v, dict | list))
    if not inner:
      return
    level = inner
  raise ValueError(_too_deep())
