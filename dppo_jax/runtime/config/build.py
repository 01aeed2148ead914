"""The door: a ConfigDict comes in, checked and frozen settings go on.

Nothing below this module knows of ml_collections. `build_experiment` reports
all problems of a config at once, each with its path, what was got and what is
allowed.
"""

from collections.abc import Mapping
import dataclasses
import json
import math
import pathlib
from typing import Any

import ml_collections

from dppo_jax import parallel, reasoning_tasks
from dppo_jax.base import Tokenizer
from dppo_jax.data import mixture
from dppo_jax.data import stop_strings as stop_strings_lib
from dppo_jax.learner.length_buckets import LengthBuckets
from dppo_jax.learner.loss_config import LossConfig
from dppo_jax.learner.movement import keeps_hidden
from dppo_jax.learner.optimizer import OptimizerConfig
from dppo_jax.learner.train_step import StepConfig
from dppo_jax.rewards.shaping import ShapingConfig, parse_shaping
from dppo_jax.runtime.config import follow, microbatches
from dppo_jax.runtime.config import problems as problems_lib
from dppo_jax.runtime.config import tokenizer as tokenizer_lib
from dppo_jax.runtime.config.checks.model import lora_config
from dppo_jax.runtime.config.experiment import (
  AdapterConfig,
  AdvantagesConfig,
  CheckpointsConfig,
  DataConfig,
  EnvironmentConfig,
  EvaluationConfig,
  Experiment,
  LearnerConfig,
  LedgerConfig,
  MeshConfig,
  ModelConfig,
  PolicyOptimizerConfig,
  ProfileConfig,
  RewardModelConfig,
  RewardsConfig,
  RolloutConfig,
  SftConfig,
  VerificationConfig,
  WritersConfig,
)
from dppo_jax.runtime.config.paths import config_path
from dppo_jax.runtime.hub import hf_config, published_keys
from dppo_jax.sampling.decode import SamplingConfig
from dppo_jax.sampling.support import Support
from dppo_jax.thresholds import Thresholds

# Rows that share a prompt where rows are ordered by length: a group of unlike
# lengths would run at that of its longest. By simulation (R = 8,192, P = 1,024
# and 256, 4 widths, 4 to 32 microbatches, log-normal lengths of mean R/7.4, R/3
# and R/1.7) two rows take .54 to .96 of the columns of whole groups, prompts
# included, and 1.06 where all rows are full.
_SORTED_TOGETHER = 2


def build_experiment(
  config: ml_collections.ConfigDict, num_devices: int
) -> Experiment:
  """Checks a config as a whole and freezes it.

  Args:
    config: as of `configs/default.py`.
    num_devices: devices the mesh is laid over.

  Raises:
    ValueError: lists every problem found.
  """
  config = _with_followers(_with_shape(config))
  # Its attributes are of any type; `find_problems` has checked them.
  c: Any = config
  problems = problems_lib.find_problems(config.to_dict(), num_devices)
  if len(problems) == 1:
    raise ValueError(problems[0])
  if problems:
    listed = '\n'.join(f'  {problem}' for problem in problems)
    raise ValueError(f'{len(problems)} problems in the config:\n{listed}')

  published_keys.check_tokenizer(c.data.tokenizer)
  loss = _loss(c, num_devices)
  sampling = _sampling(c, loss, tokenizer_lib.open_tokenizer(c.data))
  return Experiment(
    seed=c.seed,
    num_steps=c.num_steps,
    data=DataConfig(
      **{
        **c.data,
        'fields': dict(c.data.fields),
        'tasks': reasoning_tasks.parse(c.data.tasks),
        'mixture': mixture.parse(c.data.mixture),
        'chat_template_arguments': tokenizer_lib.template_arguments(c.data),
      }
    ),
    rewards=_rewards(c),
    model=_model(c, tokenizer_lib.vocabulary_size(c)),
    lora=_adapter(c),
    sampling=sampling,
    environment=EnvironmentConfig(**c.environment),
    advantages=AdvantagesConfig(**c.advantages),
    loss=loss,
    optimizer=PolicyOptimizerConfig(
      **vars(_optimizer(c, c.learner.num_minibatches)),
      max_nonfinite=c.optimizer.max_nonfinite,
    ),
    learner=_learner(c, loss, num_devices),
    sft=_sft(c, num_devices),
    mesh=MeshConfig(**c.mesh),
    evaluation=_evaluation(c, sampling),
    checkpoints=CheckpointsConfig(**c.checkpoints),
    writers=WritersConfig(**c.writers),
    ledger=LedgerConfig(**c.ledger),
    profile=ProfileConfig(**c.profile),
    compilation_cache=c.compilation_cache,
    num_devices=num_devices,
    resolved=json.loads(json.dumps(config.to_dict())),  # No tuples.
  )


def _with_shape(config: ml_collections.ConfigDict) -> Any:
  """The config with the shape of its pretrained model.

  What a run recorded has its shape already, and the folder may be gone.
  """
  section: Any = config.model
  folder = pathlib.Path(section.pretrained).expanduser()
  recorded = section.vocab_size and not folder.exists()
  if not section.pretrained or recorded:
    return config
  with config_path('model.pretrained'):
    shape = hf_config.read_shape(folder)
  resolved: Any = config.copy_and_resolve_references()
  resolved.model.update(shape)
  return resolved


def _with_followers(config: ml_collections.ConfigDict) -> Any:
  """The config with the values of keys that follow others."""
  resolved: Any = config.copy_and_resolve_references()
  for section, values in follow.resolve(resolved.to_dict()).items():
    resolved[section].update(values)
  return resolved


def _rewards(c: Any) -> RewardsConfig:
  return RewardsConfig(
    **{name: c.rewards[name] for name in _names(VerificationConfig)},
    truncated=c.rewards.truncated,
    shaping=ShapingConfig(
      terms=parse_shaping(c.rewards.shaping),
      max_length=c.sampling.max_completion_length,
      cache=c.rewards.overlong_cache,
    ),
    model=from_section(c.rewards),
    max_failed=c.rewards.max_failed,
  )


def _model(c: Any, vocab_size: int) -> ModelConfig:
  section = dict(c.model)
  section['vocab_size'] = vocab_size
  section['mlp_only_layers'] = tuple(section['mlp_only_layers'])
  return ModelConfig(**section)


def _adapter(c: Any) -> AdapterConfig | None:
  config = lora_config(c.lora)
  if config is None:
    return None
  return AdapterConfig(
    **vars(config),
    pretrained=c.lora.pretrained,
    base_dtype=c.lora.base_dtype,
  )


def _sampling(c: Any, loss: LossConfig, tokenizer: Tokenizer) -> RolloutConfig:
  section = dict(c.sampling)
  section['temperature'] *= 1.0 + section['temperature_slip']
  # What is a token of its own ends a completion as the end token does.
  stop_strings, stop_ids = tokenizer_lib.split_stops(
    tokenizer, section.pop('stop_strings')
  )
  support = _support(section)
  return RolloutConfig(
    group_size=c.data.group_size,
    top_p=1.0,  # The trainer is told nothing of it; it knows the support.
    support=support,
    greedy=False,
    pad_id=tokenizer.pad_id,
    eos_ids=tuple(dict.fromkeys((*tokenizer.eos_ids, *stop_ids))),
    stop_ids=stop_strings_lib.ending_ids(tokenizer, stop_strings),
    with_hidden=keeps_hidden(loss) and loss.anchor == 'rollout',
    with_routes=c.learner.router_replay,
    stop_strings=stop_strings,
    **section,
  )


def _support(section: dict[str, Any]) -> Support | None:
  """The filter; takes its keys out of section `sampling`."""
  names = ('top_k', 'top_p', 'min_p')
  filters = {name: section.pop(f'support_{name}') for name in names}
  return Support(**filters) if filters['top_k'] else None


def _loss(c: Any, num_devices: int) -> LossConfig:
  data, fsdp, _, expert = parallel.axis_sizes(**c.mesh, num_devices=num_devices)
  rows = c.data.num_prompts * c.data.group_size // c.learner.num_minibatches
  parts = microbatches.resolve(c, num_devices)
  rows_a_shard = rows // parts // (data * fsdp * expert)
  shared_rows = math.gcd(c.data.group_size, rows_a_shard)
  if c.learner.length_buckets > 1 and not c.model.num_experts:
    shared_rows = math.gcd(shared_rows, _SORTED_TOGETHER)
  region = c.trust_region
  return LossConfig(
    prompt_length=c.data.max_prompt_length,
    shared_rows=shared_rows if c.learner.share_prompt_prefix else 1,
    temperature=c.sampling.temperature,
    rule=region.rule,
    divergence=region.divergence,
    anchor=region.anchor,
    top_k_set=region.top_k_set,
    bounds=Thresholds(**{name: region[name] for name in _names(Thresholds)}),
    loss_form=c.objective.loss_form,
    importance=c.objective.importance,
    ratio_cap=c.objective.ratio_cap,
    ratio_floor=c.objective.ratio_floor,
    kl_coefficient=c.objective.kl_coefficient,
    kl_estimator=c.objective.kl_estimator,
    entropy_coefficient=c.objective.entropy_coefficient,
    # Each microbatch has a balance of its own; the loss is their mean.
    load_balance_coefficient=c.objective.load_balance_coefficient / parts,
    predictive_tail=region.predictive_tail,
    vocab_size=tokenizer_lib.vocabulary_size(c),
    centering=c.objective.centering,
    centering_mask=c.objective.centering_mask,
    # The trainer's own probabilities have its own temperature.
    anchor_slip=c.sampling.temperature_slip
    if region.anchor == 'rollout'
    else 0.0,
  )


def _learner(c: Any, loss: LossConfig, num_devices: int) -> LearnerConfig:
  _, _, tensor, _ = parallel.axis_sizes(**c.mesh, num_devices=num_devices)
  return LearnerConfig(
    num_minibatches=c.learner.num_minibatches,
    num_microbatches=microbatches.resolve(c, num_devices),
    group_size=c.data.group_size,
    prompt_length=c.data.max_prompt_length,
    buckets=LengthBuckets(
      count=c.learner.length_buckets,
      multiple=tensor if c.model.shard_sequence else 1,
      prompt_length=c.data.max_prompt_length,
      group_size=c.data.group_size,
      shared_rows=loss.shared_rows,
      by_length=not c.model.num_experts,
    ),
    aggregation=c.objective.aggregation,
    length_norm=c.objective.length_norm or c.sampling.max_completion_length,
    head_chunk_tokens=c.learner.head_chunk_tokens,
  )


def _optimizer(c: Any, updates_per_step: int) -> OptimizerConfig:
  section = dict(c.optimizer)
  section.pop('max_nonfinite')
  num_warmup_steps = section.pop('num_warmup_steps')
  return OptimizerConfig(
    num_updates=c.num_steps * updates_per_step,
    num_warmup_updates=num_warmup_steps * updates_per_step,
    **section,
  )


def _sft(c: Any, num_devices: int) -> SftConfig:
  """The warm start is plain token-mean imitation at a constant rate."""
  return SftConfig(
    num_steps=c.sft.num_steps,
    batch_size=c.sft.batch_size,
    noise=c.sft.noise,
    cache=c.sft.cache,
    step=StepConfig(
      num_minibatches=1,
      num_microbatches=microbatches.least(c, c.sft.batch_size, num_devices),
      group_size=1,
      prompt_length=c.data.max_prompt_length,
      buckets=LengthBuckets(
        count=1,
        multiple=1,
        prompt_length=c.data.max_prompt_length,
        group_size=1,
        shared_rows=1,
        by_length=False,
      ),
      aggregation='token_mean',
      length_norm=1.0,
    ),
    optimizer=dataclasses.replace(
      _optimizer(c, 1),
      learning_rate=c.sft.learning_rate,
      schedule='constant',
      num_warmup_updates=0,
    ),
  )


def _evaluation(c: Any, rollouts: RolloutConfig) -> EvaluationConfig:
  """Evaluation samples from the master weights and records nothing."""
  section = c.evaluation
  sampling = SamplingConfig(
    **{name: getattr(rollouts, name) for name in _names(SamplingConfig)}
  )
  sampled = dataclasses.replace(
    sampling,
    group_size=min(section.num_samples, section.samples_per_pass),
    temperature=section.temperature,
    top_p=section.top_p,
    support=None,
    top_k=0,
    with_hidden=False,
    with_routes=False,
    precision='float32',
  )
  greedy = dataclasses.replace(sampled, group_size=1, greedy=True, top_p=1.0)
  return EvaluationConfig(
    every_n_steps=section.every_n_steps,
    source=section.source,
    files=section.files,
    fields=dict(section.fields),
    split=section.split,
    reward=section.reward,
    truncated=section.truncated,
    drop_trained_on=section.drop_trained_on,
    num_prompts=section.num_prompts,
    final_num_prompts=section.final_num_prompts,
    num_samples=section.num_samples,
    num_resamples=section.num_resamples,
    confidence=section.confidence,
    seed=c.seed,
    sampled=sampled,
    greedy=greedy if section.greedy else None,
    stop_strings=rollouts.stop_strings,
    environment=EnvironmentConfig(**c.environment),
  )


def from_section(section: Mapping[str, Any]) -> RewardModelConfig:
  """Takes the keys out of section `rewards`."""
  return RewardModelConfig(
    folder=section['model'],
    weight=section['model_weight'],
    batch_size=section['model_batch_size'],
    max_length=section['model_max_length'],
  )


def _names(kind: Any) -> list[str]:
  """Names of a dataclass's fields."""
  return [field.name for field in dataclasses.fields(kind)]
