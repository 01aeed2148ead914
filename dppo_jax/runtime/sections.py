"""Sections of a config as frozen settings, for those who read them.

Keys and defaults are explained in configs/default.py.
"""

import dataclasses
from typing import Any

from dppo_jax.data.mixture import Component
from dppo_jax.learner.optimizer import OptimizerConfig
from dppo_jax.learner.train_step import StepConfig
from dppo_jax.sampling.decode import SamplingConfig


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
class SupervisedConfig:
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
