"""The sanity test: all problems are solvable, so reward must reach 1.

Paper: arXiv:2602.04879, section 5 and appendix C, figures 3 to 5, after
arXiv:2510.26788. DeepSeek-R1-Distill-Qwen-1.5B on 1,460 problems of MATH that
it solves sometimes: 64 prompts x 8 completions, 4 updates per batch, context of
8,000 tokens, bfloat16, advantages without std, delta .15 (TV), .05 (KL).

Data: select the problems first, with the same model and the files of MATH,
  python -m experiments.select_problems --num_samples=40 --low=0.2 --high=0.8 \
    --config=configs/sanity_r1_distill_1_5b.py --config.data.source=math \
    --config.data.files= --out=~/.cache/dppo_jax/data/files/rows/sanity.jsonl
Command: python -m experiments.train --workdir=DIR \
  --config=configs/sanity_r1_distill_1_5b.py:METHOD
with METHOD of figure 3 pg_is, pg_tis, minirl, minirl_tis, grpo_clip_higher,
dppo_binary_tv (the default), dppo_binary_kl; of figure 4
dppo_binary_kl_recomputed; of figure 5 mask_0.5, mask_0.8, mask_0.5_recomputed.

Plan: --dry_run --num_devices=8 in place of --workdir=DIR.
Hardware: planned for 8 x H200. Duration: not yet run.
Expected: training reward from about .6 to above .95 in 3,500 steps under DPPO,
mean |pi - mu| flat; PG-IS, PG-TIS, MiniRL and MiniRL-TIS rise, lose control of
|pi - mu| and collapse.
"""

import ml_collections

from dppo_jax.configs import default, published, thresholds


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the sanity test under DPPO-Binary-TV, or under a preset."""
  config = default.get_config()
  config.num_steps = 3500
  published.use_model(config, 'deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B')
  published.train_on_math(config)
  config.data.source = 'rows'
  config.data.files = '~/.cache/dppo_jax/data/files/rows/sanity.jsonl'
  config.data.num_prompts = 64
  config.data.group_size = 8
  config.sampling.max_completion_length = 8000 - 1024
  config.learner.num_minibatches = 4
  config.learner.num_microbatches = 16
  config.learner.length_buckets = 4
  published.evaluate_on_aime(config, (2024,), num_samples=32)
  config.evaluation.every_n_steps = 50
  return thresholds.apply(config, 'sanity_r1_distill_1_5b', preset)
