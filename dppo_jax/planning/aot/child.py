"""A process of its own for the compiler, with the variables that it needs.

libtpu looks for a TPU, takes a lock and asks the cloud who it is, all while it
is loaded; a process that has begun cannot change that.
"""

import os
import signal
import subprocess
import sys

FLAG = '--in_this_process'
ENVIRONMENT = {
  'JAX_PLATFORMS': 'cpu',
  # A second process dies on the lockfile of the first without it.
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_SKIP_MDS_QUERY': '1',
  # Only for silence at its start.
  'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_WORKER_ID': '0',
}


def run(module: str, arguments: list[str]) -> int:
  """Runs a command again with those variables; its exit code.

  Args:
    module: to run, 'dppo_jax.experiments.plan' say.
    arguments: of the command.

  Raises:
    ValueError: it was killed, by the system where memory ran out.
  """
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
