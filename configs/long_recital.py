"""Recite for 192 tokens: completions long enough for position to matter.

Paper: arXiv:2606.10968, whose position weights and prefix budget act along a
completion. Sixteen bits are given and said twelve times over, each in a word
that names its place; one wrong bit, or place, makes a sample wrong. The task
is ours: attention by content alone learns it, so 44 thousand parameters do.

Eight updates a batch at a high learning rate, chosen with seeds 0 to 2. With
CPPO these have a mean of |pi - mu| of .002 where a completion begins and .009
where it ends; 2 % of the tokens masked, five sixths by the budget alone.

Command: python -m experiments.figures.cppo_ablation --tier=cpu --out=DIR
Hardware: 2 CPU cores, about a minute a run. Expected over 30 steps, means of
those seeds: every rule falls from the .25 of the warm start; mean reward .07
under DPPO, .13 under CPPO, .16 with its budget alone.
"""

import ml_collections

from dppo_jax.configs import presets, stale_digits


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
  config.sft.num_steps = 400
  config.sft.batch_size = 16
  config.sft.learning_rate = 5e-3
  config.sft.noise = 0.004
  config.optimizer.learning_rate = 1e-3
  config.learner.num_minibatches = 8
  return presets.apply(config, preset)
