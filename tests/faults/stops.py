"""Kills in each phase of a run, each followed by a run to the end.

python -m tests.faults.stops

A trial is right if the next run ends with the state and metrics of a run that
nobody disturbed.
"""

import pathlib
import subprocess
import tempfile

import tests.conftest  # noqa: F401 # The same devices and cache as the tests.
from tests.support import runs

# What the first steps of a run say, in order: a kill follows once it is said.
PHASES = {
  'warm start': 'warm start: step 4/',
  'evaluating the start': 'step 0: checkpoint',
  'compiling': 'step 0: held-out',
  'training': 'train: step 2/6',
  'saving': 'step 4: checkpoint',
  'evaluating the end': 'step 6: checkpoint',
}


def _until(process: subprocess.Popen, text: str) -> bool:
  """Whether a line with the text came before the run ended."""
  return any(text in line for line in iter(process.stderr.readline, ''))


def kill(phase: str, folder: pathlib.Path, finished: pathlib.Path) -> str:
  """What is wrong after a SIGKILL in a phase; '' if nothing."""
  process = runs.train(folder)
  said = _until(process, PHASES[phase])
  process.kill()
  runs.end(process)
  if not said:
    return 'the phase was missed'
  try:
    runs.run(runs.config(), folder)
    runs.assert_same(folder, finished)
  except Exception as error:
    return f'the next run: {type(error).__name__}: {str(error)[:200]}'
  return ''


def main() -> int:
  """Returns 1 where a trial was wrong."""
  wrong = 0
  with tempfile.TemporaryDirectory() as base:
    finished = runs.finished(base)
    for phase in PHASES:
      found = kill(phase, pathlib.Path(base, phase.replace(' ', '-')), finished)
      wrong += bool(found)
      print(f'SIGKILL, {phase}: {found or "right"}', flush=True)
  print(f'SIGKILL: {len(PHASES) - wrong} right of {len(PHASES)} tried')
  return int(wrong > 0)


if __name__ == '__main__':
  raise SystemExit(main())
