"""Everything that can be wrong with a config, found before anything runs.

Each check yields sentences of one form: path, what was got, what is allowed or
how to mend it. All of them are collected, so that a config is mended once.
"""

from collections.abc import Iterator

from dppo_jax.data import tasks
from dppo_jax.ops.advantages import NEED_OTHERS
from dppo_jax.runtime.config.checks import (
  data,
  environment,
  rewards,
  support,
)
from dppo_jax.runtime.config.checks.mesh import mesh_problems, slot_problems
from dppo_jax.runtime.config.checks.model import lora_problems, model_problems
from dppo_jax.runtime.config.checks.ranges import (
  Config,
  choice_problems,
  count_problems,
  range_problems,
)
from dppo_jax.runtime.config.checks.trust_region import (
  rule_problems,
  trust_region_problems,
)
from dppo_jax.runtime.config.tokenizer import vocabulary_size


def find_problems(config: Config, num_devices: int) -> list[str]:
  """Returns every problem of a config; cross-checks only where parts are fine.

  Args:
    config: plain nested dicts with the keys of configs/default.py.
    num_devices: devices of the mesh.
  """
  problems = [
    *choice_problems(config),
    *count_problems(config),
    *range_problems(config),
  ]
  # What other checks need: the vocabulary.
  problems = problems or data.find_problems(config)
  if problems:
    return problems
  return [
    *_task(config),
    *_groups(config),
    *rewards.find_misfits(
      config['rewards'],
      config['sampling']['max_completion_length'],
      talks=bool(config['environment']['name']),
    ),
    *environment.find_problems(config),
    *_evaluation(config),
    *model_problems(config),
    *lora_problems(config),
    *trust_region_problems(config),
    *rule_problems(config),
    *support.find_problems(config),
    *mesh_problems(config, num_devices),
    *slot_problems(config, num_devices),
  ]


def _task(config: Config) -> Iterator[str]:
  task = tasks.find_task(config['data']['task'])
  size = vocabulary_size(config)
  if config['sampling']['top_k'] > size:
    yield (
      f'sampling.top_k: got {config["sampling"]["top_k"]}; the vocabulary of'
      f' task {config["data"]["task"]!r} has {size} tokens, record at most'
      ' those.'
      if not config['data']['tokenizer']
      else f'sampling.top_k: got {config["sampling"]["top_k"]}; the vocabulary'
      f' has {size} tokens, record at most those.'
    )
  filtered = config['sampling']['support_top_k']
  if filtered > size:
    yield (
      f'sampling.support_top_k: got {filtered}; the vocabulary has {size}'
      ' tokens; at most those.'
    )
  if config['data']['source'] != data.TASK:
    return
  needed = task.max_completion_length
  limit = config['sampling']['max_completion_length']
  if limit < needed:
    yield (
      f'sampling.max_completion_length: got {limit}; right completions of'
      f' task {config["data"]["task"]!r} take up to {needed} tokens.'
    )


def _groups(config: Config) -> Iterator[str]:
  estimator = config['advantages']['estimator']
  if config['data']['group_size'] == 1 and estimator in NEED_OTHERS:
    yield (
      f'data.group_size: got 1; advantages.estimator={estimator!r} compares the'
      ' completions of a prompt with one another, so that every advantage would'
      ' be 0 and nothing would be trained; at least 2.'
    )


def _evaluation(config: Config) -> Iterator[str]:
  metric = config['checkpoints']['best_metric']
  by_model = config['evaluation']['reward'] == 'model'
  if by_model and not config['rewards']['model']:
    yield (
      "evaluation.reward: got 'model', and rewards.model is empty; name the"
      " folder of a reward model, or evaluate by the 'verifier'."
    )
  if by_model != (metric == 'evaluation/model_score'):
    wanted = 'model_score' if by_model else 'sampled_accuracy'
    yield (
      f'checkpoints.best_metric: {metric!r} is not measured with'
      f' evaluation.reward={config["evaluation"]["reward"]!r}; set it to'
      f" 'evaluation/{wanted}'."
    )
  elif metric == 'evaluation/greedy_accuracy':
    if not config['evaluation']['greedy']:
      yield (
        f'checkpoints.best_metric: {metric!r} is not measured with'
        ' evaluation.greedy=False; set that, or choose another metric.'
      )
