"""Times a DPPO update against a cross-entropy update of the same model.

python -m experiments.bench.train_step --config=configs/quickstart.py
"""

import pathlib

from absl import flags
import jax
from ml_collections import config_flags

from dppo_jax import hardware
from dppo_jax.runtime import entry_point
from dppo_jax.runtime.bench import timing, train_step

_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/quickstart.py', 'Model and batch.'
)
_REPEATS = flags.DEFINE_integer('repeats', 10, 'Rounds.')
_NAME = flags.DEFINE_string('name', 'quickstart', 'In the name of the result.')
_OUT = flags.DEFINE_string('out', 'experiments/bench/results', 'Folder.')


def main() -> int:
  """Measures, prints and writes; returns the exit code."""
  experiment = train_step.build(_CONFIG.value)
  found = timing.compare(train_step.make_variants(experiment), _REPEATS.value)
  flop = train_step.useful_flop(experiment)
  step, other = found[train_step.RL], found[train_step.CROSS_ENTROPY]
  result = {
    'dppo_over_cross_entropy': step.seconds / other.seconds,
    'useful_flop_per_s': flop / step.wall,
  }
  device = hardware.find_device(jax.devices()[0].device_kind)
  if device is not None:
    result['model_flop_utilization'] = flop / step.wall / device.peak
  rows = [('', ''), *((name, f'{value:.4g}') for name, value in result.items())]
  print(timing.table(rows))
  result |= {name: time._asdict() for name, time in found.items()}
  where = pathlib.Path(_OUT.value)
  print('Result:', timing.write(where, f'train_step-{_NAME.value}', result))
  return 0


if __name__ == '__main__':
  entry_point.run(main)
