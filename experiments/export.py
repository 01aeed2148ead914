"""Writes a checkpoint as a Hugging Face folder, which other tools load.

python -m experiments.export --workdir=DIR --out=HFDIR --step=best
"""

import pathlib
import sys

from absl import flags
import jax

from configs import default
from dppo_jax.runtime import entry_point, exporting, inspection, kept_files
from dppo_jax.runtime.config import build_experiment

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the training.')
_OUT = flags.DEFINE_string('out', None, 'The new folder.')
_STEP = flags.DEFINE_string('step', 'latest', 'best, latest or a number.')
_DTYPE = flags.DEFINE_string(
  'dtype', '', "float32, bfloat16, float16; '': the pretrained model's."
)
_LORA = flags.DEFINE_string(
  'lora', exporting.MERGED, "merged, or adapter: kept as one, PEFT's format."
)
_BASE = flags.DEFINE_string(
  'base', '', "Of --lora=adapter: its base's folder; '': model.pretrained."
)
_SHARD = flags.DEFINE_float('max_shard_gb', 5.0, 'Size of a file, 10^9 bytes.')


def main() -> int:
  """Exports; returns the exit code."""
  named = entry_point.required('workdir', _WORKDIR.value, 'the run to export')
  out = entry_point.required('out', _OUT.value, 'the folder to write')
  if not _SHARD.value > 0:
    raise ValueError(f'--max_shard_gb: got {_SHARD.value}; a number above 0.')
  folder = pathlib.Path(named).expanduser().absolute()
  config = inspection.restore_config(
    default.get_config(), folder, {}, jax.device_count()
  )
  experiment = build_experiment(config, jax.device_count())
  written = exporting.export(
    experiment,
    folder,
    pathlib.Path(out).expanduser().absolute(),
    _STEP.value,
    _DTYPE.value,
    int(_SHARD.value * 1e9),
    _LORA.value,
    _BASE.value,
  )
  for text in kept_files.remarks(experiment, folder):
    print(f'note: {text}', file=sys.stderr)
  for path in written:
    print(f'{path.stat().st_size:>14,}  {path}')
  return 0


if __name__ == '__main__':
  entry_point.run(main)
