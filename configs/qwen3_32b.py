"""Qwen3-32B on 2,048 chips: for planning, and as a template for large runs.

Paper: arXiv:2602.04879 trains models of 8B and 30B-A3B; this is its recipe for
the dense one with four times the prompts, so that every chip has sequences.

Command: python -m experiments.train --config=configs/qwen3_32b.py \
  --workdir=DIR
Plan: python -m experiments.plan --config=configs/qwen3_32b.py \
  --topology=v5p:8x16x16
Hardware: planned for 2,048 x TPU v5p. Duration: not yet run.
Expected: no published run to compare with.
"""

import ml_collections

from dppo_jax.configs import published, qwen3_8b_base, thresholds


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the run under DPPO-Binary-TV, or under a preset."""
  config = qwen3_8b_base.get_config()
  published.use_model(config, 'Qwen/Qwen3-32B')
  config.data.num_prompts = 512
  config.learner.num_microbatches = 4
  config.mesh.update(data=1, fsdp=-1, tensor=8)
  config.sft.batch_size = 256  # Rows for every shard.
  config.evaluation.num_prompts = 256
  config.evaluation.final_num_prompts = 256
  return thresholds.apply(config, 'qwen3_32b', preset)
