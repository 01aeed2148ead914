"""Trains a policy: config -> experiment -> run.

python -m experiments.train --config=configs/quickstart.py --workdir=DIR \
  --config.trust_region.divergence=binary_kl
"""

import pathlib
import sys
import time

from absl import app, flags, logging
import jax
from ml_collections import config_flags

from dppo_jax.runtime import loop, planning, report, workdir
from dppo_jax.runtime.checkpoints import CheckpointError
from dppo_jax.runtime.config import build_experiment
from dppo_jax.runtime.preemption import Preempted
from dppo_jax.runtime.recorder import NonFiniteError

_BEGIN = time.monotonic()
_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/quickstart.py', 'Experiment; --config.KEY=… overrides.'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.')
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Print the plan and exit.')


def main(argv: list[str]) -> int:
  """Runs; returns the exit code."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments {argv[1:]}')
  experiment = build_experiment(_CONFIG.value, jax.device_count())
  if _DRY_RUN.value:
    print(planning.describe(experiment))
    return 0
  if _WORKDIR.value is None:
    raise ValueError('--workdir: missing; name the folder of the run.')
  folder = workdir.open_workdir(_WORKDIR.value)
  with workdir.locked(folder):
    workdir.check_config(folder, experiment.resolved)
    facts = loop.run(experiment, folder)
    facts['process_s'] = round(time.monotonic() - _BEGIN, 1)
    command = f'python -m experiments.train {" ".join(sys.argv[1:])}'
    print(report.finish(pathlib.Path(folder), facts, command))
  return 0


def _main(argv: list[str]) -> int:
  try:
    return main(argv)
  except Preempted as stopped:
    print(f'{stopped} Run the same command to resume.', file=sys.stderr)
    return stopped.exit_code
  except (ValueError, CheckpointError, NonFiniteError) as error:
    # What a user can mend: the message is enough.
    print(f'error: {error}', file=sys.stderr)
    return 1


if __name__ == '__main__':
  logging.set_verbosity(logging.WARNING)  # Orbax tells of every file.
  app.run(_main)
