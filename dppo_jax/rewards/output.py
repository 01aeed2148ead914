"""What verifiers print: copied to stderr, up to a limit."""

import contextlib
import sys

MAX_OUTPUT = 1 << 18  # Bytes that verifiers may print in the life of a pool.


class CappedOutput:
  """Copies what it is given to stderr until there is too much of it."""

  def __init__(self) -> None:
    self._left = MAX_OUTPUT

  def copy(self, found: bytes) -> None:
    """Copies, or drops; says once that it drops."""
    if not found or self._left <= 0:
      return
    text = found[: self._left].decode(errors='replace')
    self._left -= len(found)
    if self._left <= 0:
      text += (
        f'\nrewards.verifier: it has printed {MAX_OUTPUT >> 10} KiB; more is'
        ' dropped.\n'
      )
    # The reader of a console may be gone; no verdict depends on it.
    with contextlib.suppress(OSError, ValueError, AttributeError):
      sys.stderr.write(text)
      sys.stderr.flush()
