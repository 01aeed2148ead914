"""Qwen3-8B-Base on DAPO-Math-17k under CPPO.

Paper: arXiv:2606.10968, table 1 (column 8B-Base), figures 4 and 7, table 3: 128
prompts x 8 completions, 4 updates of 32 prompts, completions up to 8k tokens,
Top-K TV with K = 20, delta .15, a budget per completion of at least .02 and at
most twice that, w_min .8, no cap (eq. 11); T_stop 490 steps (table 4). All else
as in configs/qwen3_1_7b_base.py. DPPO's run of this model has a different cap,
delta and evaluation: configs/qwen3_8b_base.py.

Command: python -m experiments.train --workdir=DIR \
  --config=configs/cppo_qwen3_8b_base.py:METHOD
with METHOD cppo_dynamic (the default), grpo_clip_higher, minpro, cispo,
dppo_topk_tv, trm_max, trm_mean.

Plan: --dry_run --num_devices=32 in place of --workdir=DIR.
Hardware: planned for 32 x H200. Duration: not yet run.
Expected: avg@16, mean of AIME 24, 25 and 26: CPPO 31.1 %, MinPRO 29.7 %, CISPO
29.6 %, DPPO 28.9 %, TRM-Avg 28.0 %, TRM-Max 26.7 %, GRPO 24.0 %.
"""

import ml_collections

from dppo_jax.configs import published, qwen3_1_7b, thresholds


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the run under CPPO with a dynamic budget, or under a preset."""
  config = qwen3_1_7b.get_config()
  config.num_steps = 490
  published.use_model(config, 'Qwen/Qwen3-8B-Base')
  config.data.num_prompts = 128
  config.learner.num_minibatches = 4
  config.learner.num_microbatches = 8
  return thresholds.apply(config, 'cppo_qwen3_8b_base', preset)
