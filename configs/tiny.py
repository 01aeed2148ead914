"""A run of seconds, for tests: every phase, real gradients, little learning.

The task is the running sum, whose direct answers are right one time in ten
after a few SFT steps.

Command: python -m experiments.train --config=configs/tiny.py --workdir=DIR
"""

import ml_collections

from dppo_jax.configs import default, presets


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns a config whose every phase takes a second or so."""
  config = default.get_config()
  config.num_steps = 6
  config.data.task = 'running_sum'
  config.data.max_prompt_length = 6
  config.data.num_prompts = 8
  config.data.group_size = 4
  config.model.d_model = 16
  config.model.head_dim = 8
  config.model.d_ff = 32
  config.rewards.verifier = 'last_word'
  config.sampling.top_k = 5
  config.sampling.max_completion_length = 7
  config.sampling.integrity_every_n_steps = 0  # A program less to compile.
  config.learner.num_minibatches = 2
  config.sft.num_steps = 40
  config.sft.batch_size = 32
  config.evaluation.every_n_steps = 3
  config.evaluation.num_prompts = 16
  config.evaluation.final_num_prompts = 32
  config.checkpoints.every_n_steps = 2
  config.writers.samples_every_n_steps = 2
  return presets.apply(config, preset)
