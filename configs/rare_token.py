"""Learn a rare first word: whether to think before a sum is answered.

Paper: arXiv:2602.04879 section 4.2, on rare tokens that matter. The policy
answers the sum of five digits directly, and is right one time in ten; one time
in a hundred it says `think` and shows its steps, and is then right. Reliable
answers therefore begin with a token that mu rarely samples, about ten times in
1,024. The task is ours.

Sixteen updates per batch, so that the rules mask tokens; the sampler is exact.
The ledger records every step, for p(think) under mu: `think` is always among
the four most likely first words, as there are only two.

Command: python -m experiments.figures.rare_token --tier=cpu --out=DIR
Hardware: 2 CPU cores, about half a minute per run. Expected: `think` becomes
likely within five batches under every rule, and soonest without a rule.
"""

import ml_collections

from dppo_jax.configs import presets, stale_digits


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the setting in which p(think) is .01 at the start."""
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
