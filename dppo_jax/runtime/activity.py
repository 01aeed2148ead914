"""Tells what a command is at, before ten seconds have passed without a line.

Whatever may take long is named by `under_way`, wherever it stands. A thread
that `watch` starts looks at the names; without it, as in a notebook or a test,
nothing is ever told.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import sys
import threading
import time

from absl import logging
import tqdm

from dppo_jax.runtime.hosts import coordination

# Seconds until silence is broken, and between looks: 10 s in all.
PATIENCE_S = 9.5
_LOOK_S = 0.5


@dataclasses.dataclass(eq=False)
class _Activity:
  name: str
  begin: float
  progress: str = ''

  def __str__(self) -> str:
    return f'{self.name}, {self.progress}' if self.progress else self.name


class Activities:
  """Activities under way, the outermost first."""

  def __init__(
    self,
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
  ):
    """Begins with nothing under way, and as if a line was just written.

    Args:
      tell: receives lines.
      clock: seconds.
    """
    self._tell = tell
    self._clock = clock
    self._lock = threading.Lock()
    self._running: list[_Activity] = []
    self._heard = clock()

  @contextlib.contextmanager
  def under_way(self, name: str) -> Iterator[Callable[[str], None]]:
    """Names what is done within; yields what takes its progress.

    Args:
      name: as 'reading the training data'. The outermost one, the command, is
        told only where nothing within it has a name.
    """
    mine = _Activity(name, self._clock())
    with self._lock:
      self._running.append(mine)

    def note(progress: str) -> None:
      mine.progress = progress

    try:
      yield note
    finally:
      with self._lock:
        self._running.remove(mine)

  def hear(self) -> None:
    """Takes notice that something was written."""
    self._heard = self._clock()

  def look(self) -> None:
    """Tells what is under way if nothing was written for `PATIENCE_S`."""
    now = self._clock()
    with self._lock:
      shown = self._running[1:] or self._running[:]
    if shown and now - self._heard >= PATIENCE_S:
      self._heard = now
      names = ': '.join(map(str, shown))
      self._tell(f'{names} … {format_seconds(now - shown[0].begin)}')


def format_seconds(seconds: float) -> str:
  """Returns a duration as people say it: '48 s', '3 min 20 s', '2 h 5 min'."""
  total = round(seconds)
  if total < 60:
    return f'{total} s'
  if total < 3600:
    return f'{total // 60} min {total % 60} s'
  return f'{total // 3600} h {total % 3600 // 60} min'


def to_console(text: str) -> None:
  """Writes a line to stderr, of the first process alone.

  Above a progress bar, if there is one. Nothing is written where only errors
  are wanted (--verbosity=-2), and a console that is gone is no error.
  """
  if logging.get_verbosity() < logging.WARNING:
    return
  with contextlib.suppress(OSError, ValueError):
    if coordination.is_primary():
      tqdm.tqdm.write(text, file=sys.stderr)
      sys.stderr.flush()


_activities = Activities(to_console)
under_way = _activities.under_way
hear = _activities.hear
_started = threading.Event()
_handed_over = threading.Event()


def watch() -> None:
  """Begins to tell, in this process; once."""
  if _started.is_set():
    return
  _started.set()
  hear()

  def look() -> None:
    while not _handed_over.wait(_LOOK_S):
      _activities.look()

  threading.Thread(target=look, name='activity', daemon=True).start()


def hand_over() -> None:
  """Tells no more: a child with the same console does."""
  _handed_over.set()
