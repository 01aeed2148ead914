"""Sort six digits, each in any of 400 spellings: a vocabulary of 4,096 words.

Paper: arXiv:2602.04879 sections 1 and 4 say that a ratio clip fits long-tailed
vocabularies badly. Spellings are drawn by Zipf's law, so most of a token's
probability is spread over words that mean the same; the verifier reads digits
alone. The task is ours, and milder than language: tail tokens never matter.

Sixteen updates a batch from an exact sampler, at a moderate learning rate.

Command: python -m experiments.figures.large_vocabulary --tier=cpu --out=DIR
Hardware: 2 CPU cores, about half a minute a run beside its warm start.
Expected, means of the seeds 0 to 2 by which it was chosen: 78 % of what the
clip masks is rare, and 3 % of what Binary TV masks; reward .73 under the clip,
.72 under Top-K TV, .67 under Binary TV.
"""

import ml_collections

from dppo_jax.configs import presets, stale_digits


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the setting with many words for the same."""
  config = stale_digits.get_config()
  config.num_steps = 40
  config.data.task = 'alias_sort'
  config.data.num_prompts = 32
  config.data.max_prompt_length = 7
  config.rewards.verifier = 'alias_sort'
  config.sampling.max_completion_length = 7
  config.sampling.top_k = 20
  config.optimizer.learning_rate = 4e-4
  config.sft.num_steps = 500
  config.sft.learning_rate = 3e-3
  config.sft.noise = 0.05
  return presets.apply(config, preset)
