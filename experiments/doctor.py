"""Looks a config over before chip time is spent: config -> findings.

python -m experiments.doctor --config=configs/quickstart.py
python -m experiments.doctor --config=configs/quickstart.py --mesh

Exit code 1 if any finding is an error, or meshes disagree.
"""

import functools

from absl import flags
import jax
from ml_collections import config_flags

from dppo_jax.runtime import (
  assembly,
  checkup,
  doctor,
  entry_point,
  mesh_check,
  mesh_layouts,
)

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Experiment, configs/quickstart.py say; --config.KEY=…'
)
_PROMPTS = flags.DEFINE_integer('num_prompts', 8, 'Prompts to sample.')
_MESH = flags.DEFINE_bool('mesh', False, 'Compare meshes of the devices here.')


def main() -> int:
  """Examines; returns the exit code."""
  config = entry_point.required('config', _CONFIG.value, 'an experiment')
  if _PROMPTS.value < 1:
    raise ValueError(f'--num_prompts: got {_PROMPTS.value}; at least 1.')
  assembly.use_compilation_cache(config.compilation_cache)
  tell = functools.partial(print, flush=True)
  if _MESH.value:
    mesh_layouts.have_devices()
    return int(not mesh_check.check(config, _PROMPTS.value, tell))
  found = doctor.examine(config, jax.device_count(), _PROMPTS.value, tell)
  counts = {
    level: sum(finding.level == level for finding in found)
    for level in (checkup.OK, checkup.WARNING, checkup.ERROR)
  }
  print(
    f'{counts[checkup.ERROR]} errors, {counts[checkup.WARNING]} warnings,'
    f' {counts[checkup.OK]} checks passed'
  )
  return int(counts[checkup.ERROR] > 0)


if __name__ == '__main__':
  entry_point.run(main)
