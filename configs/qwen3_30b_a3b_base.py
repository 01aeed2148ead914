"""Qwen3-30B-A3B-Base on DAPO-Math under DPPO, without router replay.

Paper: arXiv:2602.04879, section 7 and appendix E, table 1 (MoE Base), figures
1, 8, 11 and 13: 256 prompts x 16 completions, 8 updates of 32 prompts,
completions up to 16,384 tokens, lr 1e-6, cap 5, delta .2 (TV) or .05 (KL). The
paper trains on a filtered subset of about 13,000 prompts, which is not
published with it; this is all of DAPO-Math-17k.

Command: python -m experiments.train --workdir=DIR \
  --config=configs/qwen3_30b_a3b_base.py:METHOD
with METHOD dppo_binary_tv (the default), dppo_binary_kl, dppo_topk_tv,
dppo_topk_kl (K = 20), grpo_clip_higher, cispo.
The thinking model of figure 15 is Qwen3-30B-A3B, of the same shape:
--config.model.pretrained=DIR --config.data.tokenizer=DIR. CPPO's run is
configs/cppo_qwen3_30b_a3b_base.py.

Plan: --dry_run --num_devices=64 in place of --workdir=DIR.
Hardware: planned for 64 x H200, because a batch is sampled at once and its KV
cache takes most of the memory.
Duration: not yet run.
Expected, read off figures 8 and 13: in 200 steps avg@32 of AIME 24 from .2 to
about .55 and of AIME 25 from .05 to about .38; CISPO collapses on the way,
GRPO with Clip-Higher is slower and ends lower.
"""

import ml_collections

from dppo_jax.configs import default, published, thresholds


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the run under DPPO-Binary-TV, or under a preset."""
  config = default.get_config()
  config.num_steps = 200
  published.use_model(config, 'Qwen/Qwen3-30B-A3B-Base')
  published.train_on_math(config)
  config.data.num_prompts = 256
  config.data.group_size = 16
  config.sampling.max_completion_length = 16_384
  config.learner.num_minibatches = 8
  config.learner.num_microbatches = 16
  # Attention scores of one sequence of 17,408 tokens are 39 GB in float32.
  config.mesh.update(data=1, fsdp=-1, tensor=4)
  config.evaluation.every_n_steps = 5
  config.evaluation.num_prompts = 128
  config.evaluation.final_num_prompts = 128
  published.set_if_known(config, 'learner.router_replay', False)
  return thresholds.apply(config, 'qwen3_30b_a3b_base', preset)
