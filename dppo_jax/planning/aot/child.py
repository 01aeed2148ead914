"""Separate process for the compiler, with the environment that it needs.

While libtpu is loaded, it looks for a TPU, takes a lock and queries the cloud's
metadata; a running process cannot change that any more.
"""

import os
import signal
import subprocess
import sys

from dppo_jax.runtime import activity

FLAG = '--in_this_process'
ENVIRONMENT = {
  'JAX_PLATFORMS': 'cpu',
  # Without it, a second process fails on the lock file of the first.
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_SKIP_MDS_QUERY': '1',
  # Only to suppress warnings at startup.
  'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_WORKER_ID': '0',
}


def run(module: str, arguments: list[str]) -> int:
  """Exit code of a command, run again with this environment.

  Args:
    module: to run, such as 'dppo_jax.experiments.plan'.
    arguments: of the command.

  Raises:
    ValueError: it was killed, by the system if memory ran out.
  """
  activity.hand_over()
  done = subprocess.run(
    [sys.executable, '-m', module, *arguments, FLAG],
    env={**os.environ, **ENVIRONMENT},
    check=False,
  )
  if done.returncode < 0:
    name = signal.Signals(-done.returncode).name
    raise ValueError(
      f'--topology: the compiler was ended by {name}; SIGKILL mostly means that'
      ' this machine ran out of memory. Close other programs, or plan one phase'
      ' at a time with --phases=.'
    )
  return done.returncode
