"""Memory of import, sampling, training and export: configs/memory_1_7b.py.

python -m experiments.bench.memory --config=configs/memory_1_7b.py --folder=DIR

Writes random weights to DIR/in where there are none, and the export to
DIR/out.
"""

import pathlib
import shutil
import sys

from absl import flags
import jax
from ml_collections import config_flags

from dppo_jax.runtime import architectures, entry_point, footprint
from dppo_jax.runtime.config import build_experiment

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Shape of the model and batch.'
)
_FOLDER = flags.DEFINE_string('folder', None, 'Takes twice the weights.')
_LIMIT = flags.DEFINE_float('limit_gb', 12.0, 'Of the peak, 10^9 bytes.')


def main() -> int:
  """Measures; returns 1 where the peak is above the limit."""
  folder = pathlib.Path(
    entry_point.required('folder', _FOLDER.value, 'a folder to write to')
  ).expanduser()
  config = entry_point.required('config', _CONFIG.value, 'an experiment')
  experiment = build_experiment(config, jax.device_count())
  meter = footprint.Meter(lambda line: print(line, flush=True))
  source, out = folder / 'in', folder / 'out'
  if not (source / architectures.CONFIG).is_file():
    with meter.stage('write'):
      footprint.write_random_model(experiment, source)
  shutil.rmtree(out, ignore_errors=True)
  footprint.measure(experiment, source, out, meter=meter)
  worst = max(meter.stages, key=lambda stage: stage.peak)
  peak = worst.peak / 1e9
  print(f'peak       {peak:.2f} GB, at {worst.name}; limit {_LIMIT.value:g} GB')
  if peak > _LIMIT.value:
    print('error: above --limit_gb.', file=sys.stderr)
  return int(peak > _LIMIT.value)


if __name__ == '__main__':
  entry_point.run(main)
