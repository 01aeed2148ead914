"""Stops in each phase of a run, and full disks; then a run to the end.

python -m tests.faults.stops [KIND ...] [KIND,NAME ...]

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
import sys
import tempfile
import time

from dppo_jax.runtime.hosts import cluster
import tests.conftest  # noqa: F401 # The same devices and cache as the tests.
from tests.support import pairs, runs

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
# `experiments.train` where files with some text in their paths find a disk
# full: every write to /dev/full fails so.
_FULL = """
import builtins, io, runpy, sys
text, opened = sys.argv.pop(1), io.open

def open_full(file, mode='r', *args, **options):
  if text in str(file) and set(mode) & set('wax+'):
    file, mode = '/dev/full', mode.replace('x', 'w')
  return opened(file, mode, *args, **options)

io.open = builtins.open = open_full
runpy.run_module('experiments.train', run_name='__main__', alter_sys=True)
"""
# Text in the paths of a writer's files -> whether a run goes on without them.
WRITERS = {
  'config.json': False,
  'inputs.json': False,
  'metrics.jsonl': False,
  'samples.jsonl': False,
  'ledger/': False,
  'checksums.json': False,
  'summary.json': False,
  'summary.png': False,
  'warm-starts/': True,
}
_LEDGER = '--config.ledger.every_n_steps=2'
# Of the second of two processes -> exit codes of the first.
_PAIR_FAULTS = {
  signal.SIGKILL: cluster.PEER_FAILED,
  signal.SIGSTOP: cluster.PEER_FAILED,
  signal.SIGTERM: 128 + signal.SIGTERM,
}
_PAIR_SETTINGS = {
  **{k: v for k, v in runs.SMALLEST.items() if k != 'num_steps'},
  'mesh.fsdp': 2,
}


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
  sent = time.monotonic()
  try:
    code = process.wait(runs.END_S)
  except subprocess.TimeoutExpired:
    process.kill()
    process.wait()
    return 'it went on'
  print(f'{time.monotonic() - sent:.1f} s from signal to end', flush=True)
  if not said:
    return 'the phase was missed'
  if code != 128 + number:
    return f'exit code {code}'
  if saved(folder) < runs.last_step(folder):
    return f'saved {saved(folder)}, recorded {runs.last_step(folder)}'
  return _resumed(folder, finished)


def _command(
  code: str, argument: object, folder: pathlib.Path
) -> subprocess.Popen:
  return runs.start_code(
    code,
    argument,
    '--config=configs/tiny.py',
    f'--workdir={folder}',
    f'--config.sft.cache={folder.with_suffix(".warm")}/warm-starts',
    '--config.compilation_cache=',
    _LEDGER,
    **runs.devices(1),
    JAX_DISABLE_MOST_OPTIMIZATIONS='1',
  )


def limited(folder: pathlib.Path, finished: pathlib.Path) -> str:
  """What is wrong where a checkpoint is too large a file; '' if nothing."""
  step = finished / runs.workdir.CHECKPOINTS / '6'
  largest = max(p.stat().st_size for p in step.rglob('*') if p.is_file())
  code, _, err = runs.end(_command(_LIMITED, largest // 2, folder))
  return _after_full(told(code, err), folder, finished)


def full(
  text: str, goes_on: bool, folder: pathlib.Path, finished: pathlib.Path
) -> str:
  """What is wrong where one writer finds no room; '' if nothing.

  Args:
    text: in the paths of its files.
    goes_on: whether a run is as good without them.
    folder: of the run.
    finished: folder of a run that nobody disturbed.
  """
  code, _, err = runs.end(_command(_FULL, text, folder))
  if goes_on:
    found = f'exit code {code}' if code else shown(err)
    found = found or ('' if text.strip('/') in err else 'it said nothing')
  else:
    found = told(code, err)
    found = found or ('' if text.strip('/') in err else 'it names no file')
  return _after_full(found, folder, finished)


def _after_full(
  found: str, folder: pathlib.Path, finished: pathlib.Path
) -> str:
  """The fault found, and what is wrong with a run where there is room."""
  code, _, err = runs.end(_command(_FULL, 'no such path', folder))
  again = f'then exit code {code}: {err[-300:]}' if code else ''
  if not again:
    try:
      runs.assert_same(folder, finished)
    except AssertionError as error:
      again = f'then another end: {str(error)[:200]}'
  return '; '.join(filter(None, (found, again)))


def shown(err: str) -> str:
  """The text around a traceback; '' where there is none."""
  at = err.find('Traceback')
  return f'a traceback: {err[max(0, at - 200) : at + 900]}' if at >= 0 else ''


def told(code: int, err: str) -> str:
  """What is wrong with the end of a run that could not write; '' if nothing."""
  if not code:
    return 'exit code 0'
  if found := shown(err):
    return found
  last = err.strip().rpartition('\n')[2]
  if 'error: ' not in last or not any(
    word in last for word in ('room', 'quota', 'limit')
  ):
    return f'no remedy: {last[:300]}'
  return ''


def pair(number: signal.Signals, folder: pathlib.Path) -> str:
  """What is wrong after a fault of the second of two processes."""
  processes = pairs.two(folder, _PAIR_SETTINGS, time_limit_s=20)
  runs.wait(lambda: runs.last_step(folder) >= 2, *processes)
  processes[1].send_signal(number)
  code, _, err = runs.end(processes[0])
  processes[1].kill()  # A stopped one would never end.
  runs.end(processes[1])
  found = []
  if code != _PAIR_FAULTS[number]:
    found.append(f'exit code {code}: {err[-300:]}')
  if traceback := shown(err):
    found.append(traceback)
  before = runs.rows(folder)
  ended = pairs.end(pairs.two(folder, _PAIR_SETTINGS))
  if any(each.code for each in ended):
    found.append(f'the next run: {ended[0].err[-300:]}')
  after = runs.rows(folder)
  if after[: len(before)] != before:
    found.append('other metrics after the resume')
  if runs.last_step(folder) != 6:
    found.append(f'the next run ended at {runs.last_step(folder)}')
  return '; '.join(found)


def trials() -> Iterator[tuple[str, str, Callable[..., str]]]:
  """(kind, name, trial of an empty folder and a finished run) of each."""
  for phase in PHASES:
    yield 'SIGKILL', phase, functools.partial(kill, phase)
  yield 'file too large', 'checkpoint', limited
  for text, goes_on in WRITERS.items():
    yield 'full disk', text, functools.partial(full, text, goes_on)
  for number in _PAIR_FAULTS:
    yield 'two processes', number.name, _alone(functools.partial(pair, number))
  for number in SIGNALS:
    for phase in PHASES:
      yield number.name, phase, functools.partial(stop, number, phase)


def _alone(trial: Callable[[pathlib.Path], str]) -> Callable[..., str]:
  """A trial that compares with no finished run: of two processes."""
  return lambda folder, finished: trial(folder)


def counted(found: dict[str, list[str]]) -> str:
  """A line per kind: how many trials of it found nothing wrong."""
  return '\n'.join(
    f'{kind}: {wrongs.count("")} right of {len(wrongs)} tried'
    for kind, wrongs in found.items()
  )


def main(*chosen: str) -> int:
  """Returns 1 where a trial was wrong.

  Args:
    *chosen: kinds to try, or trials by 'KIND,NAME'; none for all.
  """
  found = {}
  with tempfile.TemporaryDirectory() as base:
    finished = runs.finished(base)
    for number, (kind, name, trial) in enumerate(trials()):
      if chosen and not {kind, f'{kind},{name}'} & {*chosen}:
        continue
      folder = pathlib.Path(base, str(number))  # No text of WRITERS.
      wrong = trial(folder, finished)
      found.setdefault(kind, []).append(wrong)
      print(f'{kind}, {name}: {wrong or "right"}', flush=True)
  print(counted(found))
  return int(any(any(wrongs) for wrongs in found.values()))


if __name__ == '__main__':
  raise SystemExit(main(*sys.argv[1:]))
