"""Sort digits from stale data: sixteen Adam steps on every rollout batch.

Paper: arXiv:2602.04879 section 5 stresses a trust region by thousands of steps
with a mismatched sampler; here it is off-policy staleness: minibatch k is k - 1
updates off-policy, at a learning rate that is too high for every method. The
sampler is exact, so all divergence comes from the updates. The task is ours.

The learning rate lies in a window: at 3e-4 PG-IS still ends where it began, at
4e-4 DPPO with delta .2 no longer improves, either (seed 0: .33 and .39 mean
reward). Here the mean of |pi - mu| under DPPO-Binary-TV is about .05.

Command: python -m experiments.figures.stability --tier=cpu --out=DIR
Hardware: 2 CPU cores, about fifteen seconds per run. Expected: without a trust
region the reward falls below its initial value within 60 steps; with any, it
does not.
"""

import ml_collections

from dppo_jax.configs import default, presets


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the setting in which trust regions differ measurably."""
  config = default.get_config()
  config.num_steps = 60
  config.data.group_size = 8
  config.model.scan_unroll = 2
  config.advantages.estimator = 'group_mean_std'
  config.sampling.top_k = 5
  config.optimizer.learning_rate = 3.5e-4
  config.optimizer.schedule = 'constant'
  config.learner.num_minibatches = 16
  config.sft.cache = '~/.cache/dppo_jax/warm_starts'
  config.evaluation.every_n_steps = 0
  config.evaluation.greedy = False
  config.evaluation.num_prompts = 256
  config.evaluation.final_num_prompts = 256
  config.checkpoints.every_n_steps = 30
  config.writers.console_every_n_steps = 0
  config.writers.samples_every_n_steps = 0
  config.ledger.every_n_steps = 10
  return presets.apply(config, preset)
