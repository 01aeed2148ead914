"""Atomic writes, what a full disk needs, and folders named by steps."""

from collections.abc import Iterator
import contextlib
import errno
import os
import pathlib
import re
import shutil
from typing import IO

# As this package writes them: ASCII, no leading zeros, and of a length that
# `int` reads. '²' is a digit to Python, too.
_STEP = re.compile('0|[1-9][0-9]{0,17}')

# Remedy of each error that says there is no room, by number.
_NO_ROOM = {
  errno.ENOSPC: 'Make room there',
  errno.EDQUOT: "Make room within your quota (see 'quota -s')",
  errno.EFBIG: "Raise the limit on a file's size (see 'ulimit -f')",
}


def step_number(name: str) -> int | None:
  """Step that a file name denotes, or None."""
  return int(name) if _STEP.fullmatch(name) else None


def first_line(error: BaseException) -> str:
  """Class and first line of an error, at most 240 characters of it."""
  lines = str(error).strip().splitlines()
  text = lines[0] if lines else ''
  if len(text) > 240:
    # The cause, say a full disk, stands last.
    text = f'{text[:80]} … {text[-160:]}'
  return f'{type(error).__name__}: {text}'


def remedy(error: BaseException, folder: pathlib.Path) -> str:
  """What to do about a failed write for lack of room, a clause; '' if other.

  Args:
    error: as Python raises it, or with the system's words in its text, as
      native libraries do.
    folder: where it was written; exists.
  """
  for number, text in _NO_ROOM.items():
    if getattr(error, 'errno', None) == number or (
      os.strerror(number) in str(error)
    ):
      free = shutil.disk_usage(folder).free / 2**20
      return f'{text} ({free:,.0f} MiB free)'
  return ''


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
  """Gives an error for lack of room, which names no file, `path` and a remedy.

  Args:
    path: of the file written in the block; its folder exists.

  Raises:
    OSError: of the same number.
  """
  try:
    yield
  except OSError as error:
    mend = remedy(error, path.parent)
    if not mend:
      raise
    raise OSError(
      error.errno,
      f'{path}: {error.strerror}. {mend}; then run the same command again.',
    ) from error


def write_atomically(path: pathlib.Path, content: str | bytes) -> None:
  """Writes a file atomically.

  Args:
    path: of the file; its folder exists.
    content: of the file; text is written as UTF-8.

  Raises:
    OSError: it cannot be written; the old file is untouched. For lack of room
      it says what to do.
  """
  data = content.encode() if isinstance(content, str) else content
  with open_atomically(path) as file:
    file.write(data)


@contextlib.contextmanager
def open_atomically(path: pathlib.Path) -> Iterator[IO[bytes]]:
  """Binary file that replaces `path` when the block ends without an error.

  The bytes are on disk before the rename, so a reader finds the old or the new
  file even after a power failure. If the block raises, the old file is kept and
  no temporary file is left.

  Args:
    path: of the file; its folder exists.

  Yields:
    The file, open for writing.
  """
  # Unique per process: two may write the same file, and the last one wins.
  unfinished = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    with naming(path), unfinished.open('wb') as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    unfinished.replace(path)
  except BaseException:
    unfinished.unlink(missing_ok=True)
    raise
