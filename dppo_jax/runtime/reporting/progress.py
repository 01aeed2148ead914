"""How far the run is: a bar on a terminal, a line every tenth in a log."""

from collections.abc import Callable, Mapping
import sys
import time
from typing import Any, Self, TextIO

import tqdm

from dppo_jax.runtime.activity import format_seconds
from dppo_jax.runtime.hosts import coordination

_NUM_LINES = 10


class Progress:
  """Shows the step, some facts of it and the time left, on stderr."""

  def __init__(
    self,
    num_steps: int,
    start_step: int = 0,
    *,
    label: str = 'train',
    file: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Starts the bar.

    Args:
      num_steps: step at which the run is complete.
      start_step: step it resumes from.
      label: what is under way.
      file: where to write; None is stderr, of the first process alone.
      clock: seconds, of work alone: `compiling.clock` stands still while a
        program is compiled, which later steps repeat no more.
    """
    self._num_steps = num_steps
    self._step = start_step
    self._label = label
    self._file = sys.stderr if file is None else file
    self._silent = file is None and not coordination.is_primary()
    self._clock = clock
    # The first step compiles, so the pace is measured from its end.
    self._first: tuple[int, float] | None = None
    self._tenth = _tenth(start_step, num_steps)
    self._bar: Any = None
    if self._file.isatty() and not self._silent:
      self._bar = tqdm.tqdm(
        total=num_steps,
        initial=start_step,
        desc=label,
        unit='step',
        file=self._file,
        dynamic_ncols=True,
        mininterval=0.2,
        # Its own pace would be that of the steps that compiled.
        bar_format='{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]',
      )

  def update(self, step: int, facts: Mapping[str, str]) -> None:
    """Moves on to `step`.

    Args:
      step: steps taken.
      facts: what to show of it, by name.
    """
    now = self._clock()
    if self._first is None:
      self._first = (step, now)
    text = ', '.join(f'{name} {value}' for name, value in facts.items())
    if self._bar is not None:
      shown = f'{text}{self._time_left(step, now)}'
      self._bar.set_postfix_str(shown, refresh=False)
      self._bar.update(step - self._step)
    elif _tenth(step, self._num_steps) > self._tenth:
      share = step / max(self._num_steps, 1)
      self._print(
        f'{self._label}: step {step}/{self._num_steps} ({share:.0%}), '
        f'{text}{self._time_left(step, now)}'
      )
    self._tenth = _tenth(step, self._num_steps)
    self._step = step

  def note(self, text: str) -> None:
    """Writes a line of its own, above the bar."""
    if self._bar is not None:
      self._bar.write(text, file=self._file)
    else:
      self._print(text)

  def close(self) -> None:
    """Leaves the bar as it stands."""
    if self._bar is not None:
      self._bar.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *unused_exception: object) -> None:
    self.close()

  def _time_left(self, step: int, now: float) -> str:
    first_step, then = self._first or (step, now)
    if step <= first_step or step >= self._num_steps:
      return ''
    pace = (now - then) / (step - first_step)
    left = format_seconds(pace * (self._num_steps - step))
    return f', {pace:.2f} s/step, {left} left'

  def _print(self, text: str) -> None:
    if not self._silent:
      print(text, file=self._file, flush=True)


def _tenth(step: int, num_steps: int) -> int:
  return _NUM_LINES * step // max(num_steps, 1)
