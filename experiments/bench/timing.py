"""Timing of several variants of a computation, interleaved in one process.

Machines have slow periods; interleaved variants share them, so only ratios of
medians are quoted. On a CPU the time is process CPU time over all cores, which
other processes disturb least; elsewhere it is the time until the results are
ready, for several consecutive calls.
"""

from collections.abc import Callable, Mapping, Sequence
import datetime
import importlib.metadata
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any, NamedTuple

import jax

# Consecutive calls on accelerators, so that dispatch overlaps execution.
_CALLS = 4


class Timing(NamedTuple):
  """Seconds of one variant.

  Attributes:
    seconds: median over repeats; process CPU time on a CPU, else device time.
    least: minimum of them.
    wall: median wall time.
  """

  seconds: float
  least: float
  wall: float


def say(line: str) -> None:
  """Prints progress to stderr."""
  print(line, file=sys.stderr, flush=True)


def compare(
  variants: Mapping[str, Callable[[], Any]],
  repeats: int,
  note: Callable[[str], None] = say,
) -> dict[str, Timing]:
  """Timings of the variants: each is compiled, then all are run in turn.

  Args:
    variants: each computes something on the default device.
    repeats: rounds.
    note: receives progress lines.
  """
  for name, run in variants.items():
    note(f'compiling {name}')
    jax.block_until_ready(run())
  on_cpu = jax.default_backend() == 'cpu'
  calls = 1 if on_cpu else _CALLS
  found: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
  for repeat in range(repeats):
    note(f'round {repeat + 1} of {repeats}')
    for name, run in variants.items():
      cpu, wall = time.process_time(), time.perf_counter()
      jax.block_until_ready([run() for _ in range(calls)])
      cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
      found[name].append(((cpu if on_cpu else wall) / calls, wall / calls))
  return {
    name: Timing(
      statistics.median(seconds for seconds, _ in times),
      min(seconds for seconds, _ in times),
      statistics.median(wall for _, wall in times),
    )
    for name, times in found.items()
  }


def provenance() -> dict[str, Any]:
  """Device, versions and commit of a measurement."""
  device = jax.devices()[0]
  return {
    'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
    'device': device.device_kind,
    'devices': jax.device_count(),
    'cores': os.cpu_count(),
    'load': round(os.getloadavg()[0], 2),
    'time': 'process CPU' if device.platform == 'cpu' else 'device',
    'commit': _commit(),
    **{name: importlib.metadata.version(name) for name in ('jax', 'jaxlib')},
  }


def table(rows: Sequence[Sequence[str]]) -> str:
  """Text table of rows, the first one a header."""
  widths = [
    max(len(cell) for cell in column) for column in zip(*rows, strict=True)
  ]
  lines = [
    '  '.join(
      cell.ljust(width) if place == 0 else cell.rjust(width)
      for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in rows
  ]
  return '\n'.join(lines)


def write(folder: pathlib.Path, name: str, result: Mapping[str, Any]) -> str:
  """Path of NAME-DEVICE.json, after writing a result and its provenance."""
  folder.mkdir(parents=True, exist_ok=True)
  about = provenance()
  device = ''.join(c if c.isalnum() else '-' for c in about['device'].lower())
  path = folder / f'{name}-{device}.json'
  text = json.dumps({'provenance': about, **result}, indent=2)
  path.write_text(text + '\n', encoding='utf-8')
  return str(path)


def _commit() -> str:
  """Commit of the code, or '' outside of a repository."""
  try:
    done = subprocess.run(
      ['git', 'rev-parse', '--short', 'HEAD'],
      cwd=pathlib.Path(__file__).resolve().parent,
      capture_output=True,
      text=True,
      check=True,
    )
  except (OSError, subprocess.CalledProcessError):
    return ''
  return done.stdout.strip()
