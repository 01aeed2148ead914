"""Checks a config before accelerator time is spent: config -> findings.

python -m experiments.doctor --config=configs/quickstart.py
python -m experiments.doctor --config=configs/quickstart.py --mesh

Exit code 1 if any finding is an error, or meshes disagree.
"""

import functools

from absl import flags
import jax
from ml_collections import config_flags

from dppo_jax.planning import doctor, findings, mesh_check, mesh_layouts
from dppo_jax.runtime import cli
from dppo_jax.runtime.programs import compiled

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config file, with overrides --config.KEY=VALUE.'
)
_PROMPTS = flags.DEFINE_integer('num_prompts', 8, 'Prompts to sample.')
_MESH = flags.DEFINE_bool('mesh', False, 'Compare meshes of local devices.')


def main() -> int:
  """Checks; returns the exit code."""
  config = cli.required('config', _CONFIG.value, 'an experiment')
  if _PROMPTS.value < 1:
    raise ValueError(f'--num_prompts: got {_PROMPTS.value}; at least 1.')
  compiled.use_compilation_cache(config.compilation_cache)
  report = functools.partial(print, flush=True)
  if _MESH.value:
    mesh_layouts.have_devices()
    return int(not mesh_check.check(config, _PROMPTS.value, report))
  found = doctor.examine(config, jax.device_count(), _PROMPTS.value, report)
  counts = {
    level: sum(finding.level == level for finding in found)
    for level in (findings.OK, findings.WARNING, findings.ERROR)
  }
  print(
    f'{counts[findings.ERROR]} errors, {counts[findings.WARNING]} warnings,'
    f' {counts[findings.OK]} checks passed'
  )
  return int(counts[findings.ERROR] > 0)


if __name__ == '__main__':
  cli.run(main)
