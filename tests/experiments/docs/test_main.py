"""The command: pages of this repository come out as a site."""

import pathlib
import subprocess
import sys

_ROOT = pathlib.Path(__file__).parents[3]


def test_the_command_says_what_it_has():
  done = subprocess.run(
    [sys.executable, '-m', 'experiments.docs', '--help'],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert '--[no]execute' in done.stdout
