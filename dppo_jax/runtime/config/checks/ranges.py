"""Choices and ranges that the keys of a config may take."""

from collections.abc import Collection, Iterator
import dataclasses
import math
from typing import Any, NamedTuple

from dppo_jax.configs.presets import PRESETS
from dppo_jax.data import prompt_stream, tasks
from dppo_jax.learner.optimizer import SCHEDULES
from dppo_jax.models.attention.dispatch import IMPLEMENTATIONS
from dppo_jax.models.transformer import REMAT_POLICIES
from dppo_jax.ops.advantages import ADVANTAGES
from dppo_jax.ops.divergences import DIVERGENCES
from dppo_jax.ops.masking import AGGREGATIONS
from dppo_jax.ops.objectives import FORMS, KL_ESTIMATORS
from dppo_jax.ops.trust_regions import TRUST_REGIONS
from dppo_jax.rewards.limits import MIN_MEMORY_MB
from dppo_jax.rewards.verdicts import TRUNCATED_POLICIES
from dppo_jax.runtime.config.checks import data, rewards
from dppo_jax.sampling.weight_rounding import PRECISIONS
from dppo_jax.suggestions import suggest
from dppo_jax.thresholds import Thresholds

Config = dict[str, Any]


class Range(NamedTuple):
  """Numbers from `low`, itself where `closed`, to `high`."""

  low: float
  closed: bool
  high: float


def _of_thresholds(kind: str) -> dict[str, Any]:
  """Metadata of the fields of `Thresholds`, by path of the config."""
  return {
    f'trust_region.{field.name}': field.metadata[kind]
    for field in dataclasses.fields(Thresholds)
    if kind in field.metadata
  }


# Path -> the names it may hold.
CHOICES: dict[str, Collection[str]] = {
  'data.task': tasks.TASKS,
  'data.source': data.SOURCES,
  'data.overlong': prompt_stream.OVERLONG,
  'data.dynamic_sampling': data.DYNAMIC_SAMPLING,
  'model.rope_scaling': ('none', 'linear', 'llama3'),
  'model.dtype': ('float32', 'bfloat16'),
  'lora.base_dtype': ('', 'float32', 'bfloat16'),
  'model.remat': ('none', *REMAT_POLICIES),
  'model.shard_attention': ('heads', 'columns'),
  'model.attention': ('auto', *IMPLEMENTATIONS),
  'sampling.precision': PRECISIONS,
  'advantages.estimator': ADVANTAGES,
  'trust_region.rule': TRUST_REGIONS,
  'trust_region.divergence': DIVERGENCES,
  'trust_region.top_k_set': ('union', 'replace_kth'),
  'trust_region.anchor': ('rollout', 'recomputed'),
  **_of_thresholds('choices'),
  'trust_region.predictive_tail': ('aggregated', 'uniform'),
  'objective.importance': ('token', 'sequence', 'least_prefix', 'none'),
  'objective.centering': ('off', 'topk', 'exact'),
  'objective.centering_mask': ('token', 'candidate'),
  'objective.loss_form': FORMS,
  'objective.aggregation': AGGREGATIONS,
  'objective.kl_estimator': KL_ESTIMATORS,
  'optimizer.schedule': SCHEDULES,
  'evaluation.split': tasks.SPLIT_SIZES,
  'evaluation.reward': ('verifier', 'model'),
  'evaluation.truncated': ('zero', 'score'),
  'rewards.truncated': TRUNCATED_POLICIES,
  'checkpoints.best_metric': (
    'evaluation/sampled_accuracy',
    'evaluation/pass_at_k',
    'evaluation/greedy_accuracy',
    'evaluation/model_score',
  ),
}

# Paths of counts, and the least they may be.
COUNTS = {
  'seed': 0,
  'num_steps': 1,
  'data.num_items': 1,
  'data.num_prompts': 1,
  'data.group_size': 1,
  'data.max_prompt_length': 1,
  'data.max_resampling': 1,
  'rewards.num_workers': 0,
  'rewards.memory_limit_mb': MIN_MEMORY_MB,
  'rewards.overlong_cache': 0,
  'rewards.model_batch_size': 1,
  'rewards.model_max_length': 1,
  'model.vocab_size': 0,
  'model.num_layers': 1,
  'model.d_model': 1,
  'model.num_heads': 1,
  'model.num_kv_heads': 1,
  'model.head_dim': 2,
  'model.d_ff': 1,
  'model.num_experts': 0,
  'model.num_experts_per_tok': 1,
  'model.moe_intermediate_size': 1,
  'model.decoder_sparse_step': 1,
  'model.scan_unroll': 1,
  'model.rope_original_length': 1,
  'rewards.max_failed': 1,
  'lora.rank': 0,
  'sampling.max_completion_length': 1,
  'sampling.top_k': 0,
  'sampling.support_top_k': 0,
  'sampling.lag': 0,
  'sampling.num_slots': 0,
  'sampling.integrity_every_n_steps': 0,
  'sampling.cache_columns': 0,
  'environment.max_turns': 1,
  'environment.max_turn_length': 0,
  'environment.max_reply_length': 1,
  'optimizer.num_warmup_steps': 0,
  'optimizer.max_nonfinite': 1,
  'learner.num_minibatches': 1,
  'learner.num_microbatches': 0,
  'learner.length_buckets': 1,
  'learner.head_chunk_tokens': 0,
  'sft.num_steps': -1,
  'sft.batch_size': 1,
  'evaluation.every_n_steps': 0,
  'evaluation.num_prompts': 1,
  'evaluation.final_num_prompts': 0,
  'evaluation.num_samples': 1,
  'evaluation.samples_per_pass': 1,
  'evaluation.num_resamples': 1,
  'checkpoints.every_n_steps': 1,
  'checkpoints.keep': 1,
  'writers.console_every_n_steps': 0,
  'writers.samples_every_n_steps': 0,
  'writers.num_samples': 0,
  'ledger.every_n_steps': 0,
  'profile.start_step': 0,
  'profile.num_steps': 0,
}

# Paths of numbers -> where they may lie.
RANGES: dict[str, Range] = {
  'data.max_unverifiable': Range(0.0, True, 1.0),
  'rewards.time_limit_s': Range(0.0, False, math.inf),
  'rewards.wall_limit_s': Range(0.0, False, math.inf),
  'rewards.model_weight': Range(-1e6, True, 1e6),
  'model.rope_theta': Range(0.0, False, math.inf),
  'model.rope_factor': Range(0.0, False, math.inf),
  'model.norm_epsilon': Range(0.0, False, 1.0),
  'model.init_scale': Range(0.0, False, math.inf),
  'model.rope_low_frequency_factor': Range(0.0, False, math.inf),
  'model.rope_high_frequency_factor': Range(0.0, False, math.inf),
  'lora.alpha': Range(0.0, False, math.inf),
  'sampling.temperature': Range(0.0, False, math.inf),
  'sampling.support_top_p': Range(0.0, False, 1.0),
  'sampling.support_min_p': Range(0.0, True, 1.0),
  'sampling.weight_noise': Range(0.0, True, 1.0),
  'sampling.temperature_slip': Range(-1.0, False, math.inf),
  'evaluation.temperature': Range(0.0, False, math.inf),
  'evaluation.top_p': Range(0.0, False, 1.0),
  'evaluation.confidence': Range(0.0, False, 0.9999),
  **{k: Range(*v) for k, v in _of_thresholds('range').items()},
  'objective.ratio_cap': Range(0.0, False, math.inf),
  'objective.ratio_floor': Range(0.0, True, math.inf),
  'objective.length_norm': Range(0.0, True, math.inf),
  'objective.kl_coefficient': Range(0.0, True, math.inf),
  'objective.load_balance_coefficient': Range(0.0, True, math.inf),
  'optimizer.learning_rate': Range(0.0, True, math.inf),
  'optimizer.final_fraction': Range(0.0, True, 1.0),
  'optimizer.b1': Range(0.0, True, 1.0),
  'optimizer.b2': Range(0.0, True, 1.0),
  'optimizer.epsilon': Range(0.0, False, 1.0),
  'optimizer.weight_decay': Range(0.0, True, math.inf),
  'optimizer.clip_norm': Range(0.0, False, math.inf),
  'sft.learning_rate': Range(0.0, True, math.inf),
  'sft.noise': Range(0.0, True, 1.0),
}


def _at(config: Config, path: str) -> Any:
  for key in path.split('.'):
    config = config[key]
  return config


def choice_problems(config: Config) -> Iterator[str]:
  """Problems of keys whose value is one of a list; see `CHOICES`."""
  for path, known in CHOICES.items():
    got = _at(config, path)
    if path == 'trust_region.rule' and got not in known and got in PRESETS:
      yield (
        f'{path}: {got!r} is a preset, which sets a rule and more; name it'
        f' after the config: --config=CONFIG:{got}.'
      )
    elif got not in known:
      yield f'{path}: unknown {got!r}{suggest(got, known)}'
  yield from data.find_unknown_sources(config)
  yield from rewards.find_misspelled(config['rewards'])


def count_problems(config: Config) -> Iterator[str]:
  """Problems of keys that are whole numbers; see `COUNTS`."""
  for path, least in COUNTS.items():
    got = _at(config, path)
    if isinstance(got, bool) or not isinstance(got, int) or got < least:
      yield f'{path}: got {got!r}; a whole number of at least {least}.'


def range_problems(config: Config) -> Iterator[str]:
  """Problems of keys that are numbers of an interval; see `RANGES`."""
  for path, (low, closed, high) in RANGES.items():
    got = _at(config, path)
    number = isinstance(got, (int, float)) and not isinstance(got, bool)
    if number and (low <= got if closed else low < got) and got <= high:
      continue
    allowed = f'{"at least" if closed else "above"} {low:g}'
    if high != math.inf:
      allowed += f' and at most {high:g}'
    yield f'{path}: got {got!r}; a number {allowed}.'
