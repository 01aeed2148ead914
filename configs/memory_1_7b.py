"""A model of Qwen3-1.7B's shape in 12 GB of memory: a memory benchmark.

Random weights, no paper. Import, 4 completions of 64 tokens, a LoRA train step
on bfloat16 base weights, export.

Command: python -m experiments.bench.memory --folder=DIR \
  --config=configs/memory_1_7b.py
Hardware: 2 CPU cores, 12 GB. Duration: minutes. Expected: see
docs/results/performance.md, "Memory".
"""

import ml_collections

from dppo_jax.configs import default, presets, published


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the smallest run of a model of this size."""
  config = default.get_config()
  config.num_steps = 1
  published.use_model(config, 'Qwen/Qwen3-1.7B')
  # A synthetic task, so that no file is needed except the weights.
  config.model.pretrained = ''
  config.data.tokenizer = ''
  config.data.chat_template = False
  config.data.num_prompts = 2
  config.data.group_size = 2
  config.sampling.max_completion_length = 64
  config.learner.num_minibatches = 1
  config.learner.head_chunk_tokens = 128
  config.evaluation.update(num_prompts=2, final_num_prompts=2, greedy=False)
  published.set_if_known(config, 'lora.rank', 32)
  published.set_if_known(config, 'lora.alpha', 64.0)
  return presets.apply(config, preset)
