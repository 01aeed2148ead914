"""Qwen3-1.7B, post-trained, on DAPO-Math-17k under CPPO.

Paper: arXiv:2606.10968, table 1 (column 1.7B), table 3, and figure 5: 64
prompts x 8 completions, 2 updates of 32 prompts, completions up to 8k tokens,
Top-K TV with K = 20, delta .15, fixed delta_b .015, w_min .8, lr 1e-6, no cap
(eq. 11), groups with equal rewards dropped; T_stop 1,120 steps (table 4). The
paper does not say whether advantages are divided by the std; here they are not.

Command: python -m experiments.train --workdir=DIR \
  --config=configs/qwen3_1_7b.py:METHOD
with METHOD of table 1 cppo (the default), grpo_clip_higher, minpro, cispo,
dppo_topk_tv, trm_max, trm_mean; of figure 5 cppo_no_weights, cppo_no_budget,
cppo_shuffled, cppo_soft.

Plan: --dry_run --num_devices=8 in place of --workdir=DIR.
Hardware: planned for 8 x H200. Duration: not yet run.
Expected: avg@16, mean of AIME 24, 25 and 26: CPPO 31.9 %, CISPO 28.8 %, DPPO
28.2 %, GRPO 27.9 %, MinPRO 27.7 %, TRM-Avg 26.9 %, TRM-Max 25.2 %, each the
best of its validation curve.
"""

import ml_collections

from dppo_jax.configs import default, published, thresholds


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the run under CPPO, or under a preset."""
  config = default.get_config()
  config.num_steps = 1120
  published.use_model(config, 'Qwen/Qwen3-1.7B')
  published.train_as_cppo(config)
  config.data.num_prompts = 64
  config.data.group_size = 8
  config.sampling.max_completion_length = 8192
  config.learner.num_minibatches = 2
  config.learner.num_microbatches = 32
  config.learner.length_buckets = 4
  return thresholds.apply(config, 'qwen3_1_7b', preset)
