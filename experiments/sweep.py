"""Trains every variant of a config with every seed, and reports the results.

python -m experiments.sweep --config=configs/quickstart.py --seeds=3 \
  --grid=trust_region.divergence=binary_tv,topk_tv \
  --grid=trust_region.delta=.05,.1,.2 --workdir=runs/sweep
"""

import pathlib
import sys

from absl import flags
from ml_collections import config_flags

from dppo_jax.analysis.jobs.job import code_version
from dppo_jax.analysis.sweeps import command
from dppo_jax.analysis.sweeps.plan import Sweep, config_arguments
from dppo_jax.analysis.sweeps.variants import expand
from dppo_jax.configs import default, presets
from dppo_jax.runtime import cli

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Base config, with overrides --config.KEY=VALUE.'
)
_GRID = flags.DEFINE_multi_string('grid', [], 'KEY=VALUE,…: all combinations.')
_ZIP = flags.DEFINE_multi_string('zip', [], 'KEY=VALUE,…: varied in parallel.')
_SEEDS = flags.DEFINE_integer('seeds', 3, 'Seeds per variant, from 0.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder; resumes a sweep.')
_PARALLEL = flags.DEFINE_integer('parallel', 1, 'Runs at a time.')
_BASELINE = flags.DEFINE_string('baseline', None, 'Variant; default the first.')
_PRINT = flags.DEFINE_bool('print_only', False, 'Print one command per run.')
_REPORT = flags.DEFINE_bool('report', False, 'Only report on finished runs.')


def main() -> int:
  """Runs missing jobs; returns the exit code, 1 if any run failed."""
  named = cli.required('workdir', _WORKDIR.value, 'the sweep')
  folder = pathlib.Path(named).expanduser().absolute()
  defaults = default.get_config()
  if _REPORT.value:
    return command.show(folder, defaults, _BASELINE.value)
  given = cli.required('config', _CONFIG.value, 'an experiment')
  config = given.to_dict()
  sweep = Sweep(
    config=config,
    arguments=config_arguments(sys.argv[1:]),
    variants=expand(config, _GRID.value, _ZIP.value, presets.PRESETS),
    num_seeds=_SEEDS.value,
    code=code_version(),
  )
  if _PRINT.value:
    return command.print_lines(sweep, folder, defaults)
  return command.run(sweep, folder, defaults, _BASELINE.value, _PARALLEL.value)


if __name__ == '__main__':
  cli.run(main)
