"""The checked config of a run: frozen dataclasses without defaults."""

import dataclasses
from typing import Any

from dppo_jax.data.mixture import Component
from dppo_jax.learner.loss import LossConfig
from dppo_jax.learner.optimizer import OptimizerConfig
from dppo_jax.learner.train_step import StepConfig
from dppo_jax.models.layers import TransformerConfig
from dppo_jax.models.lora import LoraConfig
from dppo_jax.rewards.shaping import ShapingConfig
from dppo_jax.sampling.decode import SamplingConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardModelConfig:
  """Keys `model…` of section `rewards`.

  Attributes:
    folder: of the model; '' for none.
    weight: of its score in the reward.
    batch_size: rows a pass.
    max_length: tokens of a prompt with its completion.
  """

  folder: str
  weight: float
  batch_size: int
  max_length: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """Section `data`, see configs/default.py."""

  source: str
  task: str
  files: str
  fields: dict[str, str]
  mixture: tuple[Component, ...]
  data_dir: str
  tokenizer: str
  prompt_template: str
  chat_template: bool
  chat_template_arguments: tuple[tuple[str, Any], ...]
  system_prompt: str
  dynamic_sampling: str
  max_resampling: int
  num_prompts: int
  group_size: int
  max_prompt_length: int
  overlong: str
  max_unverifiable: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardsConfig:
  """Section `rewards`, what the verifier pool reads of it."""

  verifier: str
  extraction: str
  read_thoughts: bool
  time_limit_s: float
  wall_limit_s: float
  memory_limit_mb: int
  num_workers: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftConfig:
  """Section `supervised`: the warm start."""

  num_steps: int
  batch_size: int
  noise: float
  cache: str
  step: StepConfig
  optimizer: OptimizerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
  """Section `evaluation`, and the two ways of sampling it stands for."""

  every_n_steps: int
  source: str
  files: str
  fields: dict[str, str]
  split: str
  reward: str
  truncated: str
  drop_trained_on: bool
  num_prompts: int
  final_num_prompts: int
  num_samples: int
  num_resamples: int
  confidence: float
  seed: int
  sampled: SamplingConfig
  greedy: SamplingConfig | None
  stop_strings: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointsConfig:
  """Section `checkpoints`."""

  every_n_steps: int
  keep: int
  best_metric: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class WritersConfig:
  """Section `writers`."""

  console_every_n_steps: int
  samples_every_n_steps: int
  num_samples: int
  tensorboard: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class LedgerConfig:
  """Section `ledger`: which train steps are recorded token by token."""

  every_n_steps: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileConfig:
  """Section `profile`: which train steps are traced."""

  start_step: int
  num_steps: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
  """Section `mesh`: sizes of the axes."""

  data: int
  fsdp: int
  tensor: int
  expert: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """A checked config, by reader; `resolved` is what is written to the workdir.

  Attributes:
    seed: every key derives from it.
    num_steps: train steps.
    data: prompts.
    rewards: verification.
    truncated: a key of `TRUNCATED_POLICIES`.
    shaping: what lengths add to rewards.
    reward_model: what a model adds to them.
    model: the policy.
    pretrained: folder of its initial weights, or ''.
    lora: the adapter that trains, or None: every weight does.
    adapter: folder of its initial weights, or ''.
    base_dtype: of the weights below it, or '': as published.
    sampling: rollouts.
    stop_strings: texts that end a completion; those that are tokens are
      among `sampling.eos_ids`.
    lag: train steps between the parameters sampled from and those trained.
    gather_fsdp: the sampler's weights are whole over that axis of the mesh.
    estimator: a key of `ADVANTAGES`.
    loss: the policy loss.
    step: how a batch is cut into updates.
    head_chunk_tokens: tokens a chunk of the head; 0 derives it from the device.
    optimizer: of the policy.
    max_nonfinite: skipped updates in a row that stop the run.
    sft: the warm start.
    mesh: devices.
    evaluation: held-out accuracy.
    checkpoints: what is kept.
    writers: what is logged.
    ledger: which steps are recorded.
    profile: which steps are traced.
    compilation_cache: folder, or ''.
    resolved: the config as plain nested dicts.
  """

  seed: int
  num_steps: int
  data: DataConfig
  rewards: RewardsConfig
  truncated: str
  shaping: ShapingConfig
  reward_model: RewardModelConfig
  model: TransformerConfig
  pretrained: str
  lora: LoraConfig | None
  adapter: str
  base_dtype: str
  sampling: SamplingConfig
  stop_strings: tuple[str, ...]
  lag: int
  gather_fsdp: bool
  estimator: str
  loss: LossConfig
  step: StepConfig
  head_chunk_tokens: int
  optimizer: OptimizerConfig
  max_nonfinite: int
  sft: SftConfig
  mesh: MeshConfig
  evaluation: EvaluationConfig
  checkpoints: CheckpointsConfig
  writers: WritersConfig
  ledger: LedgerConfig
  profile: ProfileConfig
  compilation_cache: str
  resolved: dict[str, Any]
