"""Exports a checkpoint as a Hugging Face model folder.

python -m experiments.export --workdir=DIR --out=HFDIR --step=best
"""

import pathlib
import sys

from absl import flags
import jax

from dppo_jax.configs import default
from dppo_jax.runtime import cli, export
from dppo_jax.runtime.config.build import build_experiment
from dppo_jax.runtime.evaluation import offline
from dppo_jax.runtime.programs import kept_files

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.')
_OUT = flags.DEFINE_string('out', None, 'New folder to write.')
_STEP = flags.DEFINE_string('step', 'latest', 'best, latest or a number.')
_DTYPE = flags.DEFINE_string(
  'dtype', '', "float32, bfloat16, float16; '': the pretrained model's."
)
_LORA = flags.DEFINE_string(
  'lora', export.MERGED, "merged; or adapter: not merged, in PEFT's format."
)
_BASE = flags.DEFINE_string('base', '', 'Base model to name in an adapter.')
_SHARD = flags.DEFINE_float('max_shard_gb', 5.0, '10^9 bytes per file.')


def main() -> int:
  """Exports; returns the exit code."""
  named = cli.required('workdir', _WORKDIR.value, 'the run to export')
  out = cli.required('out', _OUT.value, 'the folder to write')
  if not _SHARD.value > 0:
    raise ValueError(f'--max_shard_gb: got {_SHARD.value}; a number above 0.')
  folder = pathlib.Path(named).expanduser().absolute()
  devices = jax.device_count()
  config = offline.restore_config(default.get_config(), folder, {}, devices)
  experiment = build_experiment(config, devices)
  written = export.export(
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
  cli.run(main)
