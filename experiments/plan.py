"""Plans a run for hardware that is not attached: does it fit, how fast?

python -m experiments.plan --config=configs/qwen3_8b_base.py \
  --config.mesh.tensor=8 --topology=v5e:16x16

Compiles the actual programs for TPUs, and for GPUs where JAX's CUDA plugin is
installed; else, and for local devices, by shapes only.
Exit code 1 if it does not fit.
"""

import pathlib
import sys

from absl import flags
from ml_collections import config_flags

from dppo_jax.planning.aot import child, plan, programs, report, topologies
from dppo_jax.runtime import cli

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config file, with overrides --config.KEY=VALUE.'
)
_TOPOLOGY = flags.DEFINE_string(
  'topology', None, 'v5e:16x16, v5p:8x16x16, v6e:…, tpu7x:…, gpu:8xh100, local.'
)
_SLICES = flags.DEFINE_integer('slices', 1, 'TPU slices of that shape.')
_PHASES = flags.DEFINE_multi_enum(
  'phases', programs.PHASES, programs.PHASES, 'Phases to plan.'
)
_COMPILE = flags.DEFINE_bool('compile', True, 'Else estimate from shapes only.')
_JSON = flags.DEFINE_string('json', '', 'File for the plan, as JSON.')
_HERE = flags.DEFINE_bool(
  child.FLAG.strip('-'), False, 'Internal: the environment is prepared.'
)


def main() -> int:
  """Plans; returns the exit code."""
  config = cli.required('config', _CONFIG.value, 'an experiment')
  name = cli.required('topology', _TOPOLOGY.value, 'a machine')
  topology = topologies.parse(name, _SLICES.value)
  here = topologies.can_compile('gpu') and topology.platform == 'gpu'
  compiling = _COMPILE.value and (topology.platform == 'tpu' or here)
  if (compiling or topology.platform == 'tpu') and not _HERE.value:
    return child.run('dppo_jax.experiments.plan', sys.argv[1:])
  made = plan.make_plan(
    config,
    topology,
    _PHASES.value,
    compiling=compiling,
    log=lambda line: print(line, file=sys.stderr, flush=True),
  )
  print(report.show(made))
  if _JSON.value:
    pathlib.Path(_JSON.value).expanduser().write_text(report.to_json(made))
  return int(not made.fits)


if __name__ == '__main__':
  cli.run(main)
