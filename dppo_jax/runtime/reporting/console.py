"""Standard streams that outlive their reader.

A run is worth more than its log: a terminal that was closed, `tee` that ended
at the same Ctrl-C, a full disk below a redirection must not end it, nor keep
it from saving.
"""

from collections.abc import Callable
import contextlib
import os
import sys
from typing import Any, TextIO

from dppo_jax.runtime import activity


class SteadyStream:
  """A text stream whose writes never fail; once they would, they are dropped.

  Everything else is that of the stream.
  """

  def __init__(self, stream: TextIO, hear: Callable[[], None] | None = None):
    """Wraps a stream.

    Args:
      stream: to write to.
      hear: is called at every write.
    """
    self._stream = stream
    self._hear = hear
    self._lost = False

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)

  def write(self, text: str) -> int:
    """Writes what the stream can take of the text; returns its length."""
    if self._hear is not None:
      self._hear()
    if self._lost:
      return len(text)
    try:
      try:
        self._stream.write(text)
      except UnicodeEncodeError:
        encoding = self._stream.encoding or 'ascii'
        plain = text.encode(encoding, 'backslashreplace').decode(encoding)
        self._stream.write(plain)
    except (OSError, ValueError):  # Gone, or closed.
      self._lose()
    return len(text)

  def writelines(self, lines: Any) -> None:
    """Writes them one by one."""
    for line in lines:
      self.write(line)

  def flush(self) -> None:
    """Flushes as far as that is possible."""
    if self._lost:
      return
    try:
      self._stream.flush()
    except (OSError, ValueError):
      self._lose()

  def _lose(self) -> None:
    """Sends everything from now on to nowhere, what is buffered included."""
    self._lost = True
    # Not every stream has a descriptor; native libraries write to it, too.
    with contextlib.suppress(OSError, ValueError):
      nowhere = os.open(os.devnull, os.O_WRONLY)
      os.dup2(nowhere, self._stream.fileno())
      os.close(nowhere)
      self._stream.flush()


def outlive_readers() -> None:
  """Makes the standard streams of this process steady."""
  hears = {'stdout': None, 'stderr': activity.hear}  # Where it is told.
  for name, hear in hears.items():
    stream = getattr(sys, name)
    if stream is not None and not isinstance(stream, SteadyStream):
      setattr(sys, name, SteadyStream(stream, hear))
