"""Qwen3-4B-Instruct-2507 on UltraFeedback, rewarded by a reward model.

Paper: arXiv:2602.04879, appendix F.1 and table 2: GRPO and DPPO-Binary-TV with
Skywork-Reward-Llama-3.1-8B as the only reward. Figure 10 has this model on
HH-RLHF and Gemma-2-9B-It on UltraFeedback, and figure 12 the top-20 mass of
such a run. Thresholds, batch and lengths are not published: delta is that of
most runs of the paper, batch and lengths are typical of others.

Data: hf download HuggingFaceH4/ultrafeedback_binarized --repo-type dataset \
  --include 'data/*_prefs*' \
  --local-dir ~/.cache/dppo_jax/data/files/ultrafeedback
Only the prompts are read: a reward model needs no answer. Evaluation is its
mean score of completions for held-out prompts.
Command: python -m experiments.train --workdir=DIR \
  --config=configs/rlhf_qwen3_4b.py:METHOD
with METHOD dppo_binary_tv (the default) or grpo.

Plan: --dry_run --num_devices=8 in place of --workdir=DIR.
Hardware: planned for 8 x H200. Duration: not yet run.
Expected, appendix F.1: reward 51.3 at step 150 and 70.3 at step 450 under DPPO,
36.7 and 45.2 under GRPO. Table 2: at step 150 80.9 % length-controlled wins on
AlpacaEval 2.0 under DPPO and 77.1 % under GRPO, initially 59.4 %; later
checkpoints have more reward and fewer wins.
"""

import ml_collections

from dppo_jax.configs import default, published, thresholds

_FILES = '~/.cache/dppo_jax/data/files/ultrafeedback'


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the run under DPPO-Binary-TV, or under a preset."""
  config = default.get_config()
  config.num_steps = 450
  published.use_model(config, 'Qwen/Qwen3-4B-Instruct-2507')
  config.data.update(
    source='rows',
    files=f'{_FILES}/**/train_prefs*.parquet',
    num_prompts=64,
    group_size=8,
    max_prompt_length=1024,
  )
  # A row must have an answer, although nothing reads it.
  config.data.fields.update(prompt='prompt', answer='prompt')
  config.rewards.update(verifier='none', truncated='score')
  config.objective.update(
    aggregation='sequence_mean_token_sum_norm', length_norm=0.0
  )
  published.set_if_known(
    config,
    'rewards.model',
    f'{published.MODELS}/Skywork/Skywork-Reward-Llama-3.1-8B',
  )
  config.sampling.max_completion_length = 2048
  config.learner.num_minibatches = 4
  config.learner.num_microbatches = 4
  config.learner.length_buckets = 4
  config.optimizer.update(
    learning_rate=1e-6, schedule='constant', b2=0.999, weight_decay=0.01
  )
  config.mesh.update(data=1, fsdp=-1)
  config.sampling.update(precision='bfloat16', gather_fsdp=True)
  config.evaluation.update(
    source='rows',
    files=f'{_FILES}/**/test_prefs*.parquet',
    num_prompts=64,
    final_num_prompts=256,
    num_samples=1,
    temperature=0.7,
    top_p=0.95,
    greedy=False,
    reward='model',
    truncated='score',
  )
  config.checkpoints.best_metric = 'evaluation/model_score'
  return thresholds.apply(config, 'rlhf_qwen3_4b', preset)
