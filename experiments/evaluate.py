"""Evaluates a checkpoint of a run, which may still train, or a config's policy.

python -m experiments.evaluate --workdir=DIR --step=best --split=test \
  --num_samples=16 --temperature=0.7 --top_p=0.95 --out=FILE.json
python -m experiments.evaluate --config=FILE --config.model.pretrained=FOLDER
"""

import pathlib

from absl import flags
import jax
from ml_collections import config_flags

from dppo_jax.runtime import cli
from dppo_jax.runtime.config.build import build_experiment
from dppo_jax.runtime.evaluation import offline
from dppo_jax.runtime.programs.base_weights import open_parts
from dppo_jax.runtime.rollouts.verify import open_pool

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.')
_CONFIG = config_flags.DEFINE_config_file('config', None, 'In place of a run.')
_STEP = flags.DEFINE_string('step', 'latest', 'best, latest or a number.')
_OUT = flags.DEFINE_string('out', None, 'JSON file with every problem.')
_SHOWN = flags.DEFINE_integer('num_shown', 5, 'Completions to print.')
_OVERRIDES = {  # None keeps the value of the run's config.
  'source': flags.DEFINE_string('source', None, "Like data.source; 'a, b'."),
  'files': flags.DEFINE_string('files', None, 'Like data.files.'),
  'split': flags.DEFINE_string('split', None, 'validation, test or train.'),
  'final_num_prompts': flags.DEFINE_integer('num_prompts', None, '0: all.'),
  'num_samples': flags.DEFINE_integer('num_samples', None, 'k of avg@k.'),
  'temperature': flags.DEFINE_float('temperature', None, 'Above 0.'),
  'top_p': flags.DEFINE_float('top_p', None, 'Nucleus; 1 for none.'),
}


def main() -> int:
  """Evaluates; returns the exit code."""
  named, folder = _WORKDIR.value, None
  if named is not None:
    folder = pathlib.Path(named).expanduser().absolute()
  changes = {key: flag.value for key, flag in _OVERRIDES.items()}
  devices = jax.device_count()
  config = offline.open_config(_CONFIG.value, folder, changes, devices)
  experiment = build_experiment(config, devices)
  parts = open_parts(experiment)
  state = offline.open_policy(experiment, parts, folder, _STEP.value)
  with open_pool(experiment.rewards, experiment.environment.name) as pool:
    evaluate = offline.open_evaluation(experiment, parts, pool)
    found = evaluate(state, experiment.evaluation.final_num_prompts)
  facts = {'workdir': named, 'step': int(state.step)}
  facts['evaluation'] = config.evaluation.to_dict()
  print(offline.describe(facts, parts, found, _SHOWN.value))
  out = pathlib.Path(_OUT.value) if _OUT.value is not None else None
  print(offline.write(folder, out, experiment, facts, parts, found))
  return 0


if __name__ == '__main__':
  cli.run(main)
