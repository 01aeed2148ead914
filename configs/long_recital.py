"""Recite for 192 tokens: completions long enough for position to matter.

Paper: arXiv:2606.10968, whose position weights and prefix budget act along a
completion. The task is ours.
"""

import ml_collections

from configs import presets, stale_digits


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the setting of long completions."""
  config = stale_digits.get_config()
  config.num_steps = 30
  config.data.task = 'recital'
  config.data.num_prompts = 8
  config.data.max_prompt_length = 17
  config.sampling.max_completion_length = 193
  config.model.d_model = 32
  config.model.head_dim = 8
  config.model.d_ff = 128
  config.supervised.num_steps = 400
  config.supervised.batch_size = 16
  config.supervised.learning_rate = 5e-3
  config.supervised.noise = 0.004
  config.optimizer.learning_rate = 1e-3
  config.learner.num_minibatches = 8
  return presets.apply(config, preset)
