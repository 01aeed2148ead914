"""Shapes of the published models, and settings shared by recipes.

A shape is that of the model's config.json. If the model's folder exists, it is
read instead; without it, a dry run uses this table.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

MODELS = '~/models'  # Folders of models, under their published names.

_QWEN3 = dict(
  vocab_size=151_936,
  head_dim=128,
  qk_norm=True,
  qkv_bias=False,
  rope_theta=1_000_000.0,
)
_QWEN3_1_7B = _QWEN3 | dict(
  num_layers=28,
  d_model=2048,
  num_heads=16,
  num_kv_heads=8,
  d_ff=6144,
  tied_head=True,
)
_QWEN3_4B = _QWEN3 | dict(
  num_layers=36,
  d_model=2560,
  num_heads=32,
  num_kv_heads=8,
  d_ff=9728,
  tied_head=True,
)
SHAPES: Mapping[str, dict[str, Any]] = {
  'deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B': dict(
    vocab_size=151_936,
    num_layers=28,
    d_model=1536,
    num_heads=12,
    num_kv_heads=2,
    head_dim=128,
    d_ff=8960,
    qk_norm=False,
    qkv_bias=True,
    tied_head=False,
    rope_theta=10_000.0,
  ),
  'Qwen/Qwen3-1.7B': _QWEN3_1_7B,
  'Qwen/Qwen3-1.7B-Base': _QWEN3_1_7B,
  'Qwen/Qwen3-4B-Base': _QWEN3_4B,
  'Qwen/Qwen3-4B-Instruct-2507': _QWEN3_4B | dict(rope_theta=5_000_000.0),
  'Qwen/Qwen3-8B-Base': _QWEN3
  | dict(
    num_layers=36,
    d_model=4096,
    num_heads=32,
    num_kv_heads=8,
    d_ff=12_288,
    tied_head=False,
  ),
  'Qwen/Qwen3-32B': _QWEN3
  | dict(
    num_layers=64,
    d_model=5120,
    num_heads=64,
    num_kv_heads=8,
    d_ff=25_600,
    tied_head=False,
  ),
  'Qwen/Qwen3-30B-A3B-Base': _QWEN3
  | dict(
    num_layers=48,
    d_model=2048,
    num_heads=32,
    num_kv_heads=4,
    d_ff=6144,
    num_experts=128,
    num_experts_per_tok=8,
    moe_intermediate_size=768,
    norm_topk_prob=True,
    tied_head=False,
  ),
}

# Appended to a problem; DAPO's prompts also ask for 'Answer: …'.
_BOXED = '{prompt}\n\nReason step by step, and put the answer in \\boxed{}.'


def use_model(config: ml_collections.ConfigDict, name: str) -> None:
  """Sets weights, tokenizer, chat template and shape of a published model.

  Args:
    config: changed in place.
    name: a key of `SHAPES`.
  """
  folder = f'{MODELS}/{name}'
  config.model.pretrained = folder
  config.model.update(SHAPES[name])
  # Both papers train in bfloat16; parameters and moments are float32 here.
  config.model.dtype = 'bfloat16'
  config.model.remat = 'full'
  config.data.tokenizer = folder
  config.data.chat_template = True
  config.sft.num_steps = 0


def train_on_math(config: ml_collections.ConfigDict) -> None:
  """Sets what the papers' runs on mathematics share.

  The papers give only the learning rate of the optimizer; the rest are the
  defaults of the framework they used. Their objectives sum over the tokens of a
  completion and average over completions: here also divided by the maximum
  completion length, a constant, as in the run that DPPO's authors publish with
  that framework. That run also has advantages without std, and scores truncated
  completions by their text.
  """
  config.objective.aggregation = 'sequence_mean_token_sum_norm'
  config.objective.length_norm = 0.0  # The maximum completion length.
  config.data.source = 'dapo_math_17k'
  config.data.prompt_template = _BOXED
  config.data.max_prompt_length = 1024
  config.rewards.verifier = 'math'
  config.rewards.extraction = 'boxed, answer_line'
  config.rewards.truncated = 'score'
  config.rewards.num_workers = 16
  config.optimizer.update(
    learning_rate=1e-6, schedule='constant', b2=0.999, weight_decay=0.01
  )
  config.mesh.update(data=1, fsdp=-1)
  # Inference engines hold unsharded 16-bit weights. Gathering them at every
  # token would dominate the time of a rollout.
  config.sampling.update(precision='bfloat16', gather_fsdp=True)
  evaluate_on_aime(config, (2024, 2025), num_samples=32)


def evaluate_on_aime(
  config: ml_collections.ConfigDict, years: Sequence[int], num_samples: int
) -> None:
  """Sets avg@k of AIME at temperature 0.7 and top-p 0.95, as in both papers.

  Each year has 30 problems, so the mean over problems is that over years.

  Args:
    config: changed in place.
    years: two in DPPO, three in CPPO.
    num_samples: k, 32 in DPPO and 16 in CPPO.
  """
  config.evaluation.update(
    source=', '.join(f'aime_{year}' for year in years),
    num_prompts=32 * len(years),  # All; divisible by the devices.
    final_num_prompts=32 * len(years),
    num_samples=num_samples,
    truncated='score',
    samples_per_pass=8,
    temperature=0.7,
    top_p=0.95,
    greedy=False,
  )


def train_as_cppo(config: ml_collections.ConfigDict) -> None:
  """Sets what CPPO's runs share (arXiv:2606.10968, section 4.1, appendix D).

  Advantages are R minus the group mean: the paper calls them group-relative and
  group-normalized, and does not say whether they are divided by the std; DPPO's
  authors, one of whom wrote it, publish runs without.
  """
  train_on_math(config)
  evaluate_on_aime(config, (2024, 2025, 2026), num_samples=16)
  config.data.dynamic_sampling = 'drop'  # Their filter of groups with std 0.
  config.advantages.estimator = 'group_mean'
  config.sampling.top_k = 20
  config.evaluation.every_n_steps = 10  # Theirs is not published.


def set_if_known(
  config: ml_collections.ConfigDict, path: str, value: Any
) -> None:
  """Sets a key if configs/default.py has it.

  Args:
    config: changed in place.
    path: 'section.key'.
    value: of the key.
  """
  name, key = path.split('.')
  section: Any = config[name] if name in config else {}
  if key in section:
    section[key] = value
