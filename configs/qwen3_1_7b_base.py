"""Qwen3-1.7B-Base on DAPO-Math-17k under CPPO; also DPPO's figures 6 and 7.

Paper: arXiv:2606.10968, table 1 (column 1.7B-Base), figures 4 and 7, table 3:
as Qwen3-1.7B, with a budget a response of its 90th percentile of divergence,
at least .02 and at most twice that. And arXiv:2602.04879, section 6: what
relaxing the ratio clip for rare tokens does.

Command: python -m experiments.train --workdir=DIR \
  --config=configs/qwen3_1_7b_base.py:METHOD
with METHOD '' (CPPO) or a preset; of figures 6 and 7 grpo_clip_higher,
relax_high, relax_low, relax_both (the batch of those runs is not published).

Plan: --dry_run --num_devices=8 in place of --workdir=DIR.
Hardware: planned for 8 x H200. Duration: not yet run.
Expected: avg@16, mean of AIME 24, 25 and 26: CPPO 12.8 %, CISPO 11.9 %, DPPO
10.9 %, GRPO 8.9 %. Figure 7: after 500 steps relax_both has the highest
reward, relax_low has lost its entropy.
"""

import ml_collections

from configs import default, presets, published


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the run under CPPO with a dynamic budget, or under a preset."""
  config = default.get_config()
  config.num_steps = 600
  published.use_model(config, 'Qwen/Qwen3-1.7B-Base')
  published.train_on_math(config)
  published.evaluate_on_aime(config, num_samples=16)
  config.data.num_prompts = 64
  config.data.group_size = 8
  config.data.dynamic_sampling = 'drop'
  config.sampling.max_completion_length = 8192
  config.advantages.estimator = 'group_mean_std'
  config.learner.num_minibatches = 2
  config.learner.num_microbatches = 32
  if preset:
    return presets.apply(config, preset)
  presets.apply(config, 'cppo_dynamic')
  config.trust_region.divergence = 'topk_tv'
  return config
