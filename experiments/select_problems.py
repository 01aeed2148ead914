"""Selects training problems that the initial model solves sometimes.

python -m experiments.select_problems --config=FILE --out=selected.jsonl \
  --num_samples=40 --low=0.2 --high=0.8

Then train on them: --config.data.source=rows --config.data.files=selected.jsonl
"""

import pathlib
import sys

from absl import flags
import jax
from ml_collections import config_flags

from dppo_jax.runtime import cli
from dppo_jax.runtime.config.build import build_experiment
from dppo_jax.runtime.evaluation import select_problems
from dppo_jax.runtime.hosts.preemption import stop_on_signals
from dppo_jax.runtime.programs.base_weights import open_parts
from dppo_jax.runtime.rollouts.verify import open_pool
from dppo_jax.runtime.sft.warm_start import warm_start

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Model and source.')
_OUT = flags.DEFINE_string('out', None, 'JSON-lines file to write.')
_SAMPLES = flags.DEFINE_integer('num_samples', 40, 'Samples per problem.')
_LOW = flags.DEFINE_float('low', 0.2, 'Lowest share of right samples to keep.')
_HIGH = flags.DEFINE_float('high', 0.8, 'Highest share to keep.')


def main() -> int:
  """Selects; returns the exit code."""
  config = cli.required('config', _CONFIG.value, 'an experiment')
  out = cli.required('out', _OUT.value, 'the file to write')
  experiment = build_experiment(config, jax.device_count())
  parts = open_parts(experiment)
  with (
    stop_on_signals() as stop,
    open_pool(experiment.rewards) as pool,
  ):
    found = select_problems.select(
      experiment,
      parts,
      warm_start(experiment, parts, stop).params,
      pool,
      stop,
      num_samples=_SAMPLES.value,
      low=_LOW.value,
      high=_HIGH.value,
      path=pathlib.Path(out).expanduser().absolute(),
      note=lambda done, of: print(f'{done:,} of {of:,}', file=sys.stderr),
    )
  print(f'Kept {found.num_kept:,} of {found.num_problems:,} problems: {out}')
  print(f'All problems, with their shares: {found.sampled_path}')
  return 0


if __name__ == '__main__':
  cli.run(main)
