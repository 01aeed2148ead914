"""Qwen3-30B-A3B-Base on DAPO-Math-17k under CPPO.

Paper: arXiv:2606.10968, table 1 (column 30B-A3B-Base), figures 1, 4 and 7,
table 3: 256 prompts x 16 completions, 8 updates of 32 prompts, completions up
to 16k tokens, Top-K TV with K = 20, delta .2, a budget per completion of at
least .02 and at most twice that, w_min .8, no cap (eq. 11); T_stop 560 steps
(table 4). All else as in configs/qwen3_1_7b_base.py. DPPO's run of this model
has a cap and a different evaluation: configs/qwen3_30b_a3b_base.py.

Command: python -m experiments.train --workdir=DIR \
  --config=configs/cppo_qwen3_30b_a3b_base.py:METHOD
with METHOD cppo_dynamic (the default), grpo_clip_higher, minpro, cispo,
dppo_topk_tv, trm_max, trm_mean. Figure 2 is of the thinking model, of the same
shape, after 200 steps of grpo_clip_higher: --config.model.pretrained=DIR
--config.data.tokenizer=DIR.

Plan: --dry_run --num_devices=64 in place of --workdir=DIR.
Hardware: planned for 64 x H200. Duration: not yet run.
Expected: avg@16, mean of AIME 24, 25 and 26: CPPO 54.8 %, DPPO 49.2 %, TRM-Avg
49.0 %, MinPRO 48.1 %, GRPO 38.2 %, TRM-Max 20.3 %; CISPO collapses at step 215.
"""

import ml_collections

from dppo_jax.configs import published, qwen3_30b_a3b_base, thresholds


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the run under CPPO with a dynamic budget, or under a preset."""
  config = qwen3_30b_a3b_base.get_config()
  config.num_steps = 560
  # Its model, batch and mesh, with the shared settings of CPPO's runs.
  mesh = config.mesh.to_dict()
  published.train_as_cppo(config)
  config.mesh.update(mesh)
  config.evaluation.num_prompts = 128
  config.evaluation.final_num_prompts = 128
  return thresholds.apply(config, 'cppo_qwen3_30b_a3b_base', preset)
