"""Qwen3-8B-Base on DAPO-Math under DPPO: the paper's dense base.

Paper: arXiv:2602.04879, section 7 and appendix E, table 1 (Dense Base),
figures 9 and 16: 128 prompts x 8 completions, 4 updates of 32 prompts,
completions up to 8,000 tokens, lr 1e-6, cap 5, delta .2 (TV) or .05 (KL). The
paper trains on a filtered subset of about 13,000 prompts, which is not
published with it; this is all of DAPO-Math-17k.

Command: python -m experiments.train --workdir=DIR \
  --config=configs/qwen3_8b_base.py:METHOD
with METHOD dppo_binary_tv (the default), dppo_binary_kl, grpo_clip_higher,
cispo. CPPO's run of this model is configs/cppo_qwen3_8b_base.py.

Plan: --dry_run --num_devices=32 in place of --workdir=DIR.
Hardware: planned for 32 x H200. Duration: not yet run.
Expected, read off figure 9: in 1,200 steps avg@32 of AIME 24 from .10 to about
.33, of AIME 25 from .10 to about .28; GRPO with Clip-Higher is slower and ends
lower, its entropy high.
"""

import ml_collections

from dppo_jax.configs import default, published, thresholds


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the run under DPPO-Binary-TV, or under a preset."""
  config = default.get_config()
  config.num_steps = 1200
  published.use_model(config, 'Qwen/Qwen3-8B-Base')
  published.train_on_math(config)
  config.data.num_prompts = 128
  config.data.group_size = 8
  config.sampling.max_completion_length = 8000
  config.learner.num_minibatches = 4
  config.learner.num_microbatches = 8
  config.learner.length_buckets = 4
  config.evaluation.every_n_steps = 10
  return thresholds.apply(config, 'qwen3_8b_base', preset)
