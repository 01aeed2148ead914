"""Qwen3-30B-A3B-Base on DAPO-Math under DPPO, with rollout router replay.

Paper: arXiv:2602.04879, table 1 (MoE Base w/ R3), figures 8 and 14; R3 is
arXiv:2510.11370: the trainer runs each token through the experts that the
sampler gave it. All else is configs/qwen3_30b_a3b_base.py.

Command: python -m experiments.train --workdir=DIR \
  --config=configs/qwen3_30b_a3b_base_r3.py:METHOD

Plan: --dry_run --num_devices=64 in place of --workdir=DIR.
Hardware: planned for 64 x H200. Duration: not yet run.
Expected, read off figures 8 and 14: a little above the run without R3, with
mean |pi - mu| below .004 throughout; CISPO does not collapse.
"""

import ml_collections

from dppo_jax.configs import published, qwen3_30b_a3b_base, thresholds


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the run under DPPO-Binary-TV, or under a preset."""
  config = qwen3_30b_a3b_base.get_config()
  published.set_if_known(config, 'learner.router_replay', True)
  return thresholds.apply(config, 'qwen3_30b_a3b_base_r3', preset)
