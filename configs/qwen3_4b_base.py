"""Qwen3-4B-Base on DAPO-Math under GRPO: which tokens the ratio clip masks.

Paper: arXiv:2602.04879, appendix D: the tokens that GRPO's clip masks at step
50, above 1.28 of samples with A > 0 and below .8 of those with A < 0. Batch and
lengths of the run are not published; those here are of the dense base of table
1 (configs/qwen3_8b_base.py), without its cap.

Command: python -m experiments.train --workdir=DIR \
  --config=configs/qwen3_4b_base.py:METHOD
with METHOD grpo_clip_higher, which the paper shows, or dppo_binary_tv (the
default), delta .15. The ledger records step 50: experiments.ledger reads it.

Plan: --dry_run --num_devices=16 in place of --workdir=DIR.
Hardware: planned for 16 x H200. Duration: not yet run.
Expected, appendix D: among the 50 tokens most often clipped are numbers, math
symbols, and words such as 'Wait', 'Next', 'Thus', 'Since'.
"""

import ml_collections

from dppo_jax.configs import published, qwen3_8b_base, thresholds


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the run under DPPO-Binary-TV, or under a preset."""
  config = qwen3_8b_base.get_config()
  config.num_steps = 50
  published.use_model(config, 'Qwen/Qwen3-4B-Base')
  config.ledger.every_n_steps = 50
  return thresholds.apply(config, 'qwen3_4b_base', preset)
