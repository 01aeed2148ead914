"""Qwen3-1.7B, post-trained, on DAPO-Math-17k under CPPO.

Paper: arXiv:2606.10968, table 1 (column 1.7B) and table 3: 64 prompts x 8
completions, 2 updates of 32 prompts, 8k tokens, Top-K TV with K = 20,
delta .15, fixed delta_b .015, w_min .8, lr 1e-6, advantages divided by the
std of their group, groups without variance left out.

Command: python -m experiments.train --workdir=DIR \
  --config=configs/qwen3_1_7b.py:METHOD
with METHOD '' (CPPO), or a preset: grpo_clip_higher, cispo, dppo_topk_tv,
trm_max, trm_mean. Under dppo_topk_tv add --config.trust_region.delta_low=0.15
--config.trust_region.delta_high=0.15, the table's scale for dense models.

Plan: --dry_run --num_devices=8 in place of --workdir=DIR.
Hardware: planned for 8 x H200. Duration: not yet run.
Expected: avg@16, mean of AIME 24, 25 and 26: CPPO 31.9 %, DPPO 28.2 %, GRPO
27.9 %. AIME 26 is not among the sources: name its file with
--config.evaluation.source=rows --config.evaluation.files=FILE.
"""

import ml_collections

from configs import default, presets, published


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the run under CPPO, or under a preset."""
  config = default.get_config()
  config.num_steps = 600
  published.use_model(config, 'Qwen/Qwen3-1.7B')
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
  presets.apply(config, 'cppo')
  config.trust_region.divergence = 'topk_tv'
  return config
