"""Qwen3-30B-A3B-Base on DAPO-Math under DPPO, adapters only.

Paper: arXiv:2602.04879, table 1 (MoE Base w/ LoRA), figure 17, appendix F.2:
LoRA of rank 32 and alpha 64 with lr 1e-5; 128 prompts x 8 completions, 8
updates of 16 prompts, completions up to 8,000 tokens, cap 5, delta .15 (TV).

Command: python -m experiments.train --workdir=DIR \
  --config=configs/qwen3_30b_a3b_base_lora.py:METHOD

Plan: --dry_run --num_devices=32 in place of --workdir=DIR.
Hardware: planned for 32 x H200. Duration: not yet run.
Expected, read off figure 17: in 900 steps avg@32 of AIME 24 from .2 to about
.45 and of AIME 25 from .1 to about .33; CISPO fluctuates.
"""

import ml_collections

from dppo_jax.configs import published, qwen3_30b_a3b_base, thresholds


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the run under DPPO-Binary-TV, or under a preset."""
  config = qwen3_30b_a3b_base.get_config()
  config.num_steps = 900
  config.data.num_prompts = 128
  config.data.group_size = 8
  config.sampling.max_completion_length = 8000
  config.learner.num_minibatches = 8
  config.learner.num_microbatches = 16
  config.evaluation.every_n_steps = 10
  config.optimizer.learning_rate = 1e-5
  published.set_if_known(config, 'lora.rank', 32)
  published.set_if_known(config, 'lora.alpha', 64.0)
  # Experts have no adapters.
  targets = ('query', 'key', 'value', 'output')
  published.set_if_known(config, 'lora.targets', targets)
  return thresholds.apply(config, 'qwen3_30b_a3b_base_lora', preset)
