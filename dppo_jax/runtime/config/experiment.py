"""The checked config of a run: frozen dataclasses without defaults."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from dppo_jax.data.mixture import Component
from dppo_jax.learner.loss_config import LossConfig
from dppo_jax.learner.optimizer import OptimizerConfig
from dppo_jax.learner.train_step import StepConfig
from dppo_jax.models.layers import TransformerConfig
from dppo_jax.models.lora import LoraConfig
from dppo_jax.reasoning_tasks import Task
from dppo_jax.rewards.shaping import ShapingConfig
from dppo_jax.sampling.decode import SamplingConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardModelConfig:
  """Keys `model…` of section `rewards`.

  Attributes:
    folder: of the model; '' for none.
    weight: of its score in the reward.
    batch_size: completions per forward pass.
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
  tasks: tuple[Task, ...]
  num_items: int
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
class VerificationConfig:
  """Keys of section `rewards` that the verifier pool reads."""

  verifier: str
  extraction: str
  read_thoughts: bool
  time_limit_s: float
  wall_limit_s: float
  memory_limit_mb: int
  num_workers: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardsConfig(VerificationConfig):
  """Section `rewards`.

  Attributes:
    truncated: a key of `TRUNCATED_POLICIES`.
    shaping: what lengths add to rewards.
    model: what a reward model adds to them: keys `model…`.
    max_failed: wholly failed batches in a row that stop the run.
  """

  truncated: str
  shaping: ShapingConfig
  model: RewardModelConfig
  max_failed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(TransformerConfig):
  """Section `model`: the policy.

  Attributes:
    pretrained: folder of its initial weights, or ''.
  """

  pretrained: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterConfig(LoraConfig):
  """Section `lora`: the adapter that trains.

  Attributes:
    pretrained: folder of its initial weights, or ''.
    base_dtype: of the weights below it, or '': as published.
  """

  pretrained: str
  base_dtype: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutConfig(SamplingConfig):
  """Section `sampling`: how rollouts are sampled.

  Attributes:
    stop_strings: texts that end a completion; those that are special tokens are
      among `eos_ids`, and tokens whose text holds one are `stop_ids`.
    lag: train steps between the parameters sampled from and those trained.
    gather_fsdp: the sampler's weights are whole over that axis of the mesh.
    weight_noise: relative standard deviation of noise on the sampler's weights.
    temperature_slip: `temperature` is 1 + this times that of the trainer.
    integrity_every_n_steps: steps whose sampler is checked; 0 checks none.
  """

  stop_strings: tuple[str, ...]
  lag: int
  gather_fsdp: bool
  weight_noise: float
  temperature_slip: float
  integrity_every_n_steps: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnvironmentConfig:
  """Section `environment`, see configs/default.py."""

  name: str
  max_turns: int
  max_turn_length: int
  max_reply_length: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdvantagesConfig:
  """Section `advantages`.

  Attributes:
    estimator: a key of `ADVANTAGES`.
  """

  estimator: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnerConfig(StepConfig):
  """Section `learner`: how a batch is split into updates.

  Attributes:
    head_chunk_tokens: tokens per LM-head chunk; 0 derives it from the device.
  """

  head_chunk_tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyOptimizerConfig(OptimizerConfig):
  """Section `optimizer`: of the policy.

  Attributes:
    max_nonfinite: skipped updates in a row that stop the run.
  """

  max_nonfinite: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftConfig:
  """Section `sft`: the warm start."""

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
  environment: EnvironmentConfig


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
  wandb: bool
  wandb_project: str


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
  """A checked config, with the sections and keys of configs/default.py.

  An override `--config.sampling.lag=1` is read as `experiment.sampling.lag`.
  One section is not there under its name: `loss` holds `trust_region` and
  `objective`, which the policy loss reads together.

  Attributes:
    seed: every key derives from it.
    num_steps: train steps.
    data: prompts.
    rewards: verification, and what is added to its rewards.
    model: the policy.
    lora: the adapter that trains, or None: every weight does.
    sampling: rollouts.
    environment: what answers between turns; one of name '' nothing.
    advantages: how rewards become advantages.
    loss: sections `trust_region` and `objective`.
    optimizer: of the policy.
    learner: how a batch is split into updates.
    sft: the warm start.
    mesh: sizes of the mesh's axes.
    evaluation: held-out accuracy.
    checkpoints: what is kept.
    writers: what is logged.
    ledger: which steps are recorded.
    profile: which steps are traced.
    compilation_cache: folder, or ''.
    num_devices: devices that the config was checked for; the mesh is laid over
      the first so many. No key of the config.
    resolved: the config as plain nested dicts, as the workdir keeps it. No key
      either.
  """

  seed: int
  num_steps: int
  data: DataConfig
  rewards: RewardsConfig
  model: ModelConfig
  lora: AdapterConfig | None
  sampling: RolloutConfig
  environment: EnvironmentConfig
  advantages: AdvantagesConfig
  loss: LossConfig
  optimizer: PolicyOptimizerConfig
  learner: LearnerConfig
  sft: SftConfig
  mesh: MeshConfig
  evaluation: EvaluationConfig
  checkpoints: CheckpointsConfig
  writers: WritersConfig
  ledger: LedgerConfig
  profile: ProfileConfig
  compilation_cache: str
  num_devices: int
  resolved: dict[str, Any]


def replace_keys(
  experiment: Experiment, changes: Mapping[str, Any]
) -> Experiment:
  """The experiment with other values of some keys; checks nothing.

  Args:
    experiment: is not changed, nor is its `resolved`.
    changes: by path: {'sampling.lag': 1}.
  """
  for path, value in changes.items():
    section, _, key = path.rpartition('.')
    if section:
      part = dataclasses.replace(getattr(experiment, section), **{key: value})
      experiment = dataclasses.replace(experiment, **{section: part})
    else:
      experiment = dataclasses.replace(experiment, **{key: value})
  return experiment
