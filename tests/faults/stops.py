"""Stops in each phase of a run, each followed by a run to the end.

python -m tests.faults.stops

A trial is right if the next run ends with the state and metrics of a run that
nobody disturbed. A signal that can be caught must also end in its exit code,
with nothing lost that was recorded; a full disk in one line that says what to
do. Outside CI, whose short form is tests/faults/test_stops.py.
"""

from collections.abc import Callable, Iterable, Iterator
import functools
import pathlib
import signal
import subprocess
import tempfile

import tests.conftest  # noqa: F401 # The same devices and cache as the tests.
from tests.support import runs

# What the first steps of a run say, in order: a stop follows once it is said.
PHASES = {
  'warm start': 'warm start: step 4/',
  'evaluating the start': 'step 0: checkpoint',
  'compiling': 'step 0: held-out',
  'training': 'train: step 2/6',
  'saving': 'step 4: checkpoint',
  'evaluating the end': 'step 6: checkpoint',
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# `experiments.train` where no file may grow beyond some bytes.
_LIMITED = """
import resource, runpy, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
runpy.run_module('experiments.train', run_name='__main__', alter_sys=True)
"""


def reached(phase: str, lines: Iterable[str]) -> bool:
  """Whether the lines, read no further than needed, tell of a phase."""
  return any(PHASES[phase] in line for line in lines)


def _start(folder: pathlib.Path) -> subprocess.Popen:
  # Under nohup a run would inherit that it is ignored.
  before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
  try:
    return runs.train(folder)
  finally:
    signal.signal(signal.SIGHUP, before)


def _resumed(folder: pathlib.Path, finished: pathlib.Path) -> str:
  """What is wrong with the end of the next run; '' if nothing."""
  try:
    runs.run(runs.config(), folder)
    runs.assert_same(folder, finished)
  except Exception as error:
    return f'the next run: {type(error).__name__}: {str(error)[:200]}'
  return ''


def kill(phase: str, folder: pathlib.Path, finished: pathlib.Path) -> str:
  """What is wrong after a SIGKILL in a phase; '' if nothing."""
  process = _start(folder)
  said = reached(phase, iter(process.stderr.readline, ''))
  process.kill()
  runs.end(process)
  return _resumed(folder, finished) if said else 'the phase was missed'


def saved(folder: pathlib.Path) -> int:
  """Step of the latest checkpoint, by its folder; -1 where there is none."""
  names = [path.name for path in folder.glob(f'{runs.workdir.CHECKPOINTS}/*')]
  return max((int(name) for name in names if name.isdecimal()), default=-1)


def stop(
  number: signal.Signals,
  phase: str,
  folder: pathlib.Path,
  finished: pathlib.Path,
) -> str:
  """What is wrong after a signal in a phase, whose output nobody reads."""
  process = _start(folder)
  said = reached(phase, iter(process.stderr.readline, ''))
  for stream in (process.stdout, process.stderr):
    stream.close()  # As `tee` does that got the same signal.
  process.send_signal(number)
  try:
    code = process.wait(runs.END_S)
  except subprocess.TimeoutExpired:
    process.kill()
    process.wait()
    return 'it went on'
  if not said:
    return 'the phase was missed'
  if code != 128 + number:
    return f'exit code {code}'
  if saved(folder) < runs.last_step(folder):
    return f'saved {saved(folder)}, recorded {runs.last_step(folder)}'
  return _resumed(folder, finished)


def full(folder: pathlib.Path, finished: pathlib.Path) -> str:
  """What is wrong where a checkpoint finds no room; '' if nothing."""
  step = finished / runs.workdir.CHECKPOINTS / '6'
  largest = max(p.stat().st_size for p in step.rglob('*') if p.is_file())
  process = runs.start_code(
    _LIMITED,
    largest // 2,
    '--config=configs/tiny.py',
    f'--workdir={folder}',
    '--config.compilation_cache=',
    **runs.devices(1),
    JAX_DISABLE_MOST_OPTIMIZATIONS='1',
  )
  code, _, err = runs.end(process)
  if found := told(code, err):
    return found
  return _resumed(folder, finished)


def told(code: int, err: str) -> str:
  """What is wrong with the end of a run that could not write; '' if nothing."""
  if not code:
    return 'exit code 0'
  if 'Traceback' in err:
    return f'a traceback: {err[-300:]}'
  last = err.strip().rpartition('\n')[2]
  if 'error: ' not in last or not any(
    word in last for word in ('space', 'room', 'quota', 'limit')
  ):
    return f'no remedy: {last[:300]}'
  return ''


def trials() -> Iterator[tuple[str, str, Callable[..., str]]]:
  """(kind, name, trial of an empty folder and a finished run) of each."""
  for phase in PHASES:
    yield 'SIGKILL', phase, functools.partial(kill, phase)
  yield 'file too large', 'checkpoint', full
  for number in SIGNALS:
    for phase in PHASES:
      yield number.name, phase, functools.partial(stop, number, phase)


def counted(found: dict[str, list[str]]) -> str:
  """A line per kind: how many trials of it found nothing wrong."""
  return '\n'.join(
    f'{kind}: {wrongs.count("")} right of {len(wrongs)} tried'
    for kind, wrongs in found.items()
  )


def main() -> int:
  """Returns 1 where a trial was wrong."""
  found = {}
  with tempfile.TemporaryDirectory() as base:
    finished = runs.finished(base)
    for kind, name, trial in trials():
      folder = pathlib.Path(base, f'{kind}-{name}'.replace(' ', '-'))
      wrong = trial(folder, finished)
      found.setdefault(kind, []).append(wrong)
      print(f'{kind}, {name}: {wrong or "right"}', flush=True)
  print(counted(found))
  return int(any(any(wrongs) for wrongs in found.values()))


if __name__ == '__main__':
  raise SystemExit(main())
