"""Learn a rare first word: whether to think before a sum is answered.

Paper: what arXiv:2602.04879 section 4.2 says of rare tokens that matter. A
policy answers the sum of five digits at once, and is right one time in ten; one
time in a hundred it says `think` and shows its steps, which makes it right.
Every good sample therefore begins with a token that mu hardly ever samples,
about ten of 1,024. The task is ours.

Sixteen updates a batch, so that the rules have something to decide; the
sampler is exact. The ledger keeps every step, for p(think) of mu: it is among
the four most likely first words always, as there are but two.

Command: python -m experiments.figures.rare_token --tier=cpu --out=DIR
Hardware: 2 CPU cores, about half a minute a run. Expected: `think` becomes
likely within five batches under every rule, and soonest without any.
"""

import ml_collections

from dppo_jax.configs import presets, stale_digits


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the setting in which p(think) begins at .01."""
  config = stale_digits.get_config()
  config.num_steps = 30
  config.data.task = 'running_sum'
  config.data.group_size = 16
  config.data.max_prompt_length = 6
  config.rewards.verifier = 'last_word'
  config.sampling.max_completion_length = 7
  config.sampling.top_k = 4
  config.optimizer.learning_rate = 5e-4
  config.sft.num_steps = 700
  config.sft.learning_rate = 3e-3
  config.sft.noise = 0.0
  config.ledger.every_n_steps = 1
  return presets.apply(config, preset)
