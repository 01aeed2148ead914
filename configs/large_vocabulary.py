"""Sort six digits, each with 400 aliases: a vocabulary of 4,096 words.

Paper: arXiv:2602.04879 sections 1 and 4 say that a ratio clip fits long-tailed
vocabularies badly. Aliases are Zipf distributed, so most of a token's
probability is spread over words with the same meaning; the verifier reads only
digits. The task is ours, and easier than language: rare tokens never matter.

Sixteen updates per batch from an exact sampler, at a moderate learning rate.

Command: python -m experiments.figures.large_vocabulary --tier=cpu --out=DIR
Hardware: 2 CPU cores, about half a minute per run without its warm start.
Expected, means of seeds 0 to 2, with which it was tuned: 78 % of the tokens
masked by the clip are rare, and 3 % of those masked by Binary TV; reward .73
under the clip, .72 under Top-K TV, .67 under Binary TV.
"""

import ml_collections

from dppo_jax.configs import presets, stale_digits


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the setting with many aliases per digit."""
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
