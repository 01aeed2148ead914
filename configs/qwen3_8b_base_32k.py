"""Qwen3-8B-Base on DAPO-Math under DPPO, completions up to 31,744 tokens.

Paper: arXiv:2602.04879 trains this model on completions of 8,000 tokens
(qwen3_8b_base); this is its recipe with a quarter of the prompts and four times
the tokens, so that a step samples as many. With 1,024 tokens of prompt they
fill the 32,768 positions of the model.

Command: python -m experiments.train --config=configs/qwen3_8b_base_32k.py \
  --workdir=DIR
Plan: python -m experiments.plan --config=configs/qwen3_8b_base_32k.py \
  --topology=v5p:4x8x8
Hardware: planned for 256 x TPU v5p. Duration: not yet run.
Expected: no published run to compare with.
"""

import ml_collections

from dppo_jax.configs import qwen3_8b_base, thresholds


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the run under DPPO-Binary-TV, or under a preset."""
  config = qwen3_8b_base.get_config()
  config.data.num_prompts = 32
  config.sampling.max_completion_length = 31_744
  # A row of a microbatch for every 8 devices, which share its columns.
  config.learner.num_microbatches = 2
  config.model.shard_sequence = True
  config.mesh.update(data=1, fsdp=-1, tensor=8)
  return thresholds.apply(config, 'qwen3_8b_base_32k', preset)
