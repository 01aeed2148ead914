"""Qwen3-1.7B-Base on DAPO-Math-17k under CPPO; also DPPO's figures 6 and 7.

Paper: arXiv:2606.10968, table 1 (column 1.7B-Base), figures 4, 6 and 7, table
3: as Qwen3-1.7B, with a budget per completion, the 90th percentile of its
divergences, at least .02 and at most twice that; T_stop 680 steps (table 4).
And arXiv:2602.04879, section 6: the effect of relaxing the ratio clip for rare
tokens; the batch of those runs is not published, this is CPPO's.

Command: python -m experiments.train --workdir=DIR \
  --config=configs/qwen3_1_7b_base.py:METHOD
with METHOD of table 1 cppo_dynamic (the default), grpo_clip_higher, minpro,
cispo, dppo_topk_tv, trm_max, trm_mean; of figure 6 cppo (delta_b .03, fixed),
cppo_kl, trm_max_mean; of DPPO's figures grpo_clip_higher, relax_high,
relax_low, relax_both.

Plan: --dry_run --num_devices=8 in place of --workdir=DIR.
Hardware: planned for 8 x H200. Duration: not yet run.
Expected: avg@16, mean of AIME 24, 25 and 26: CPPO 12.8 %, CISPO 11.9 %, TRM-Avg
11.7 %, MinPRO 11.0 %, DPPO 10.9 %, TRM-Max 9.7 %, GRPO 8.9 %. Figure 7: after
500 steps relax_both has the highest reward, relax_low has lost its entropy.
"""

import ml_collections

from dppo_jax.configs import published, qwen3_1_7b, thresholds


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the run under CPPO with a dynamic budget, or under a preset."""
  config = qwen3_1_7b.get_config()
  config.num_steps = 680
  published.use_model(config, 'Qwen/Qwen3-1.7B-Base')
  return thresholds.apply(config, 'qwen3_1_7b_base', preset)
