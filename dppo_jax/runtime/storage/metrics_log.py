"""Metrics and samples as JSON lines that a resumed run continues exactly.

Each line is flushed to the operating system, so a killed process loses none.
The lines of a step are written before its checkpoint. On resume, lines after
the restored step are dropped and written again: the file ends up as if the run
had never stopped.
"""

from collections.abc import Mapping, Sequence
import json
import logging
import math
import os
import pathlib
from typing import Any, NamedTuple, Self

import numpy as np

from dppo_jax import bounded_json
from dppo_jax.runtime.storage.files import naming, write_atomically

METRICS_FILE = 'metrics.jsonl'
SAMPLES_FILE = 'samples.jsonl'
_DAMAGED = 'damaged'

_log = logging.getLogger(__name__)


class Sample(NamedTuple):
  """A completion and its verdict."""

  prompt: str
  completion: str
  reward: float
  reason: str


class MetricWriter:
  """Appends metrics to metrics.jsonl, and hands them to other writers."""

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    start_step: int | None,
    others: Sequence[Any] = (),
  ):
    """Opens the file and drops what the restored step has not seen.

    Args:
      workdir: folder of metrics.jsonl; made if absent.
      start_step: the restored step, whose lines stay; None starts afresh.
      others: receive the finite metrics as numbers, by `write(step, row)`, and
        are closed with this one.

    Raises:
      OSError: if the folder cannot be written.
    """
    self._lines = _JsonLines(pathlib.Path(workdir) / METRICS_FILE, start_step)
    self._others = others

  def write(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Writes one line, `{"step": 3, "loss/total": 0.25, …}`.

    Several lines may share a step; a reader merges them.

    Args:
      step: train steps taken.
      metrics: scalars of Python, numpy or jax, including timings ('time/…').
        A non-finite one becomes "NaN", "Infinity" or "-Infinity": valid JSON
        that `float` reads back.
    """
    row = {name: to_json(value) for name, value in metrics.items()}
    self._lines.append({'step': int(step), **row})
    numbers = {n: v for n, v in row.items() if not isinstance(v, str)}
    for other in self._others:
      other.write(int(step), numbers)

  def close(self) -> None:
    """Closes the files; written lines are safe without it."""
    self._lines.close()
    for other in self._others:
      other.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *unused_exception: object) -> None:
    self.close()


class SampleWriter:
  """Writer of completions to samples.jsonl."""

  def __init__(self, workdir: str | os.PathLike[str], start_step: int | None):
    """Opens the file; arguments as for `MetricWriter`."""
    self._lines = _JsonLines(pathlib.Path(workdir) / SAMPLES_FILE, start_step)

  def write(self, step: int, samples: Sequence[Sample]) -> None:
    """Writes one line per sample: step, prompt, completion, reward, reason."""
    for sample in samples:
      row = sample._asdict() | {'reward': to_json(sample.reward)}
      self._lines.append({'step': int(step), **row})

  def close(self) -> None:
    """Closes the file; written lines are safe without it."""
    self._lines.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *unused_exception: object) -> None:
    self.close()


def to_json(value: Any) -> int | float | str:
  """Scalar as a JSON value.

  Args:
    value: a scalar of Python, numpy or jax. An f32 is written with the fewest
      digits that read back as the same f32.

  Returns:
    An int, a finite float, or 'NaN', 'Infinity', '-Infinity'.
  """
  scalar = np.asarray(value)[()]
  if np.issubdtype(scalar.dtype, np.integer) or scalar.dtype == np.bool_:
    return int(scalar)
  number = float(scalar)
  if math.isnan(number):
    return 'NaN'
  if math.isinf(number):
    return 'Infinity' if number > 0 else '-Infinity'
  return float(str(scalar)) if scalar.dtype == np.float32 else number


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Rows of a file of JSON lines, without truncated or damaged ones.

  Damaged lines are logged, except for the last, which may be in progress.

  Args:
    path: metrics.jsonl or samples.jsonl; need not exist.

  Returns:
    The intact rows, in order; each has at least 'step'.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    return []
  *lines, unfinished = path.read_bytes().split(b'\n')
  rows: list[dict[str, Any]] = []
  for number, line in enumerate(lines, 1):
    row = _parse(line)
    if row is not None:
      rows.append(row)
    elif line.strip():
      _log.warning('%s: line %d is damaged and is left out', path, number)
  last = _parse(unfinished)
  return [*rows, last] if last is not None else rows


def _parse(line: bytes) -> dict[str, Any] | None:
  try:
    row = bounded_json.parse(line)
  except ValueError:
    return None
  whole = isinstance(row, dict) and type(row.get('step')) is int
  return row if whole else None


class _JsonLines:
  """File of JSON lines, truncated to the restored step when opened."""

  def __init__(self, path: pathlib.Path, start_step: int | None):
    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_later_steps(path, -1 if start_step is None else start_step)
    self._path = path
    self._file = path.open('a', encoding='utf-8')

  def append(self, row: Mapping[str, Any]) -> None:
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    with naming(self._path):
      self._file.write(text + '\n')
      self._file.flush()

  def close(self) -> None:
    with naming(self._path):  # What could not be written is tried again.
      self._file.close()


def _drop_later_steps(path: pathlib.Path, last_step: int) -> None:
  """Drops later steps and a truncated last line, atomically.

  Other damaged lines are moved to a file beside it: they are what remains of a
  step that will not be recorded again.
  """
  if not path.is_file():
    return
  with path.open('rb') as file:
    lines = list(file)
  kept: list[bytes] = []
  damaged: list[bytes] = []
  for number, line in enumerate(lines, 1):
    row = _parse(line)
    if row is None and line.endswith(b'\n'):
      if last_step >= 0:  # Otherwise the run starts again.
        damaged.append(line)
        aside = path.with_name(f'{path.name}.{_DAMAGED}')
        _log.warning(
          '%s: line %d is damaged; it is kept in %s', path, number, aside.name
        )
    elif row is None or not line.endswith(b'\n'):
      _log.warning('%s: dropped a line that was cut off', path)
    elif row['step'] <= last_step:
      kept.append(line)
  if damaged:
    with path.with_name(f'{path.name}.{_DAMAGED}').open('ab') as file:
      file.writelines(damaged)
  if len(kept) < len(lines):
    write_atomically(path, b''.join(kept))
