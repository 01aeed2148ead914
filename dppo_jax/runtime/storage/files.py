"""Files that are written whole or not at all, and folders named by steps."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import re
from typing import IO

# As this package writes them: ASCII, no leading zeros, and of a length that
# `int` reads. '²' is a digit to Python, too.
_STEP = re.compile('0|[1-9][0-9]{0,17}')


def step_number(name: str) -> int | None:
  """The step that a name stands for; None where it is no step."""
  return int(name) if _STEP.fullmatch(name) else None


def first_line(error: BaseException) -> str:
  """Class and first line of an error, at most 240 characters of it."""
  lines = str(error).strip().splitlines()
  text = lines[0] if lines else ''
  if len(text) > 240:
    # The cause, say a full disk, stands last.
    text = f'{text[:80]} … {text[-160:]}'
  return f'{type(error).__name__}: {text}'


def write_atomically(path: pathlib.Path, content: str | bytes) -> None:
  """Writes a file that is either the old one or the new one, never half.

  Args:
    path: of the file; its folder exists.
    content: the whole of it; text is written as UTF-8.

  Raises:
    OSError: it cannot be written; the old file is untouched.
  """
  data = content.encode() if isinstance(content, str) else content
  with open_atomically(path) as file:
    file.write(data)


@contextlib.contextmanager
def open_atomically(path: pathlib.Path) -> Iterator[IO[bytes]]:
  """A binary file that takes the place of `path` when the block ends well.

  The bytes are on the disk before the name is: after a power failure, too, a
  reader finds the old file or the new one. Where the block raises, the old
  file is untouched and nothing is left beside it.

  Args:
    path: of the file; its folder exists.

  Yields:
    The file, open for writing.
  """
  # Of this process alone: two may write the same file, and the last one wins.
  unfinished = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    with unfinished.open('wb') as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    unfinished.replace(path)
  except BaseException:
    unfinished.unlink(missing_ok=True)
    raise
