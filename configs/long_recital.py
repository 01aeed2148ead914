"""Recite for 192 tokens: completions long enough for position to matter.

Paper: arXiv:2606.10968, whose position weights and prefix budget act along a
completion. Sixteen bits are given and recited twelve times, each as a word with
its position; one wrong bit or position makes a sample wrong. The task is ours:
content-based attention is enough, so 44 thousand parameters learn it.

Eight updates per batch at a high learning rate, tuned with seeds 0 to 2. With
CPPO the mean of |pi - mu| is .002 at the start of a completion and .009 at its
end; 2 % of the tokens are masked, five sixths by the budget alone.

Command: python -m experiments.figures.cppo_ablation --tier=cpu --out=DIR
Hardware: 2 CPU cores, about a minute per run. Expected over 30 steps, means of
those seeds: under every rule the reward falls from the .25 of the warm start;
mean reward .07 under DPPO, .13 under CPPO, .16 with its budget alone.
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
