"""Trains a policy: config -> experiment -> run.

python -m experiments.train --config=configs/quickstart.py --workdir=DIR \
  --config.trust_region.divergence=binary_kl
"""

import sys
import time

from absl import flags
import jax
from ml_collections import config_flags

from dppo_jax.planning import dry_run
from dppo_jax.runtime import cli, loop
from dppo_jax.runtime.config.build import build_experiment
from dppo_jax.runtime.hosts import cluster, coordination
from dppo_jax.runtime.reporting import header
from dppo_jax.runtime.storage import shared_workdir

_BEGIN = time.monotonic()
_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config file, with overrides --config.KEY=VALUE.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run; resumes a run there.'
)
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Print the plan and exit.')
_NUM_DEVICES = flags.DEFINE_integer(
  'num_devices', 0, 'Devices to plan for in a dry run; 0: local devices.'
)
_JSON = flags.DEFINE_string(
  'plan_json', '', 'With --dry_run: file for it, as JSON; - prints it.'
)
_EXTEND = flags.DEFINE_bool('extend', False, 'Resume for more num_steps.')
_LAUNCH = cluster.define_flags()


def main() -> int:
  """Runs; returns the exit code."""
  config = cli.required('config', _CONFIG.value, 'an experiment')
  if _DRY_RUN.value:
    print(dry_run.show(config, _NUM_DEVICES.value, _JSON.value))
    return 0
  cluster.start(_LAUNCH())
  shared_workdir.check_hosts(config.to_dict())
  experiment = build_experiment(config, jax.device_count())
  named = cli.required('workdir', _WORKDIR.value, 'a folder for the run')
  resolved, extend = experiment.resolved, _EXTEND.value
  with shared_workdir.opened(named, resolved, extend=extend) as folder:
    facts = loop.run(experiment, folder)
    facts.setdefault('process_s', round(time.monotonic() - _BEGIN, 1))
    if coordination.is_primary():
      print(header.finish(folder, facts, sys.argv[1:]))
  return 0


if __name__ == '__main__':
  cli.run(main)
