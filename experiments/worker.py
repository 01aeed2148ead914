"""Runs the jobs that its standard input names; started by analysis/jobs/pool.py.

python -m experiments.worker < REQUESTS
"""

import os
import sys

from absl import logging

from dppo_jax.analysis.jobs import worker
from dppo_jax.configs import default


def main() -> int:
  """Serves until there are no more requests; returns the exit code."""
  logging.set_verbosity(logging.WARNING)  # Orbax tells of every file.
  # A run may print; replies have a channel of their own.
  replies = os.fdopen(os.dup(sys.stdout.fileno()), 'w')
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
  return worker.serve(default.get_config, sys.stdin, replies)


if __name__ == '__main__':
  sys.exit(main())
