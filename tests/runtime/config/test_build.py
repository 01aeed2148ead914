import dataclasses
import json

import pytest

from dppo_jax.configs import default
from dppo_jax.runtime.config.build import build_experiment
from dppo_jax.runtime.config.experiment import replace_keys
from dppo_jax.runtime.storage import workdir
from tests.support import runs

# Keys that a value of several keys is made of.
_DERIVED = {
  'evaluation': {'samples_per_pass', 'temperature', 'top_p'},
  'learner': {'length_buckets', 'router_replay', 'share_prompt_prefix'},
  'optimizer': {'num_warmup_steps'},
  'sampling': {'support_top_k', 'support_top_p', 'support_min_p'},
  'rewards': {
    'model_batch_size',
    'model_max_length',
    'model_weight',
    'overlong_cache',
  },
  'sft': {'learning_rate'},
}
# Keys whose text or number stands for more.
_PARSED = ('greedy', 'model', 'num_microbatches', 'shaping', 'vocab_size')


def test_every_section_reaches_its_reader():
  settings = runs.config()
  built = runs.experiment(settings)
  assert built.resolved == json.loads(json.dumps(settings.to_dict()))
  for name in ('mesh', 'checkpoints', 'writers', 'profile'):
    assert dataclasses.asdict(getattr(built, name)) == built.resolved[name]
  rewards = built.resolved['rewards']
  assert built.rewards.shaping.cache == rewards['overlong_cache']
  assert [t.name for t in built.rewards.shaping.terms] == [rewards['shaping']]
  model = dataclasses.asdict(built.rewards.model)
  assert model.pop('folder') == rewards['model']
  for name, value in model.items():
    assert value == rewards[f'model_{name}']
  for name, value in dataclasses.asdict(built.loss.bounds).items():
    assert built.resolved['trust_region'][name] == value


def test_a_key_is_read_under_the_name_of_its_override():
  built = runs.experiment(
    runs.config(
      lora__rank=2,
      lora__base_dtype='bfloat16',
      sampling__lag=1,
      optimizer__max_nonfinite=7,
      rewards__truncated='score',
      rewards__max_failed=3,
      learner__head_chunk_tokens=32,
    )
  )
  assert built.lora.base_dtype == 'bfloat16'
  assert built.sampling.lag == 1
  assert built.optimizer.max_nonfinite == 7
  assert built.rewards.truncated == 'score'
  assert built.rewards.max_failed == 3
  assert built.learner.head_chunk_tokens == 32
  assert built.num_devices == 1
  for section, recorded in built.resolved.items():
    if section in ('trust_region', 'objective'):
      continue  # Read together: `loss`.
    assert hasattr(built, section)
    if isinstance(recorded, dict):
      got = getattr(built, section)
      told = {key for key in recorded if not hasattr(got, key)}
      assert told == _DERIVED.get(section, set())
      for key in recorded.keys() - told:
        value = json.loads(json.dumps(getattr(got, key), default=vars))
        assert value == recorded[key] or key in _PARSED


def test_keys_are_replaced_by_their_paths():
  built = runs.experiment()
  other = replace_keys(built, {'sampling.lag': 3, 'num_steps': 9})
  assert (other.sampling.lag, other.num_steps) == (3, 9)
  assert built.sampling.lag == 0
  assert (
    replace_keys(other, {'sampling.lag': 0, 'num_steps': built.num_steps})
    == built
  )


def test_the_resolved_config_survives_json():
  resolved = runs.experiment().resolved
  recorded = json.loads(json.dumps(resolved))  # Its tuples are lists.
  assert json.dumps(recorded) == json.dumps(resolved)
  restored = workdir.overlay(default.get_config(), recorded)
  assert build_experiment(restored, 1) == runs.experiment()


def test_training_samples_from_the_whole_softmax():
  sampling = runs.experiment(runs.config(evaluation__top_p=0.5)).sampling
  assert sampling.top_p == 1.0
  assert not sampling.greedy
  assert sampling.group_size == 4


def test_a_slip_is_the_samplers_alone():
  slipped = dict(sampling__temperature=0.5, sampling__temperature_slip=0.2)
  built = runs.experiment(runs.config(**slipped))
  assert built.sampling.temperature == pytest.approx(0.6)
  assert (built.loss.temperature, built.loss.anchor_slip) == (0.5, 0.2)
  assert built.evaluation.sampled.temperature == 1.0
  recomputed = runs.config(trust_region__anchor='recomputed', **slipped)
  assert runs.experiment(recomputed).loss.anchor_slip == 0.0


@pytest.mark.parametrize(
  ('key', 'value', 'allowed'),
  [
    ('weight_noise', -0.1, 'at least 0 and at most 1'),
    ('weight_noise', 2.0, 'at least 0 and at most 1'),
    ('temperature_slip', -1.0, 'above -1'),
  ],
)
def test_a_mismatch_that_cannot_be_is_refused(key, value, allowed):
  message = rf'sampling\.{key}: got {value}; a number {allowed}'
  with pytest.raises(ValueError, match=message):
    runs.experiment(runs.config(**{f'sampling__{key}': value}))


def test_evaluation_samples_its_own_way():
  evaluation = runs.experiment(
    runs.config(
      evaluation__num_samples=3,
      evaluation__top_p=0.5,
      evaluation__temperature=0.7,
      sampling__precision='int8',
    )
  ).evaluation
  sampled, greedy = evaluation.sampled, evaluation.greedy
  assert (sampled.group_size, sampled.top_p, sampled.temperature) == (
    (3, 0.5, 0.7)
  )
  assert (sampled.top_k, sampled.precision) == (0, 'float32')
  assert greedy.greedy
  assert greedy.group_size == 1
  assert (evaluation.num_samples, evaluation.seed) == (3, 0)
  passes = runs.experiment(
    runs.config(evaluation__num_samples=32, evaluation__samples_per_pass=12)
  ).evaluation
  assert (passes.num_samples, passes.sampled.group_size) == (32, 12)
  off = runs.experiment(runs.config(evaluation__greedy=False))
  assert off.evaluation.greedy is None


def test_steps_become_updates():
  optimizer = runs.experiment(
    runs.config(optimizer__num_warmup_steps=3)
  ).optimizer
  assert (optimizer.num_updates, optimizer.num_warmup_updates) == (12, 6)


def test_the_warm_start_has_an_optimizer_of_its_own():
  sft = runs.experiment(runs.config(sft__learning_rate=0.125)).sft
  assert sft.optimizer.learning_rate == 0.125
  assert sft.optimizer.schedule == 'constant'
  assert sft.step.num_minibatches == 1
  assert sft.step.num_microbatches == 1
  # 128 demonstrations of 6 + 1,018 tokens.
  wide = runs.config(sft__batch_size=128, sampling__max_completion_length=1018)
  assert runs.experiment(wide).sft.step.num_microbatches == 16


@pytest.mark.parametrize(
  ('overrides', 'num_devices', 'rows'),
  [
    ({}, 1, 4),
    (dict(learner__num_microbatches=8), 1, 2),
    ({}, 8, 2),
    (dict(learner__share_prompt_prefix=False), 1, 1),
    # Ordered by length, unlike rows are better apart.
    (dict(learner__length_buckets=2), 1, 2),
    (dict(learner__length_buckets=2, learner__num_microbatches=16), 1, 1),
    (dict(learner__length_buckets=2, model__num_experts=8), 1, 4),
  ],
)
def test_prompts_are_shared_by_rows_that_stay_together(
  overrides, num_devices, rows
):
  found = runs.experiment(runs.config(**overrides), num_devices)
  assert found.loss.shared_rows == found.learner.buckets.shared_rows == rows


@pytest.mark.parametrize(
  ('shard_sequence', 'widths'), [(False, (5, 10)), (True, (6, 10))]
)
def test_devices_that_split_a_row_divide_its_widths(shard_sequence, widths):
  settings = runs.config(
    mesh__tensor=2,
    model__shard_sequence=shard_sequence,
    sampling__max_completion_length=10,
    learner__length_buckets=2,
  )
  assert runs.experiment(settings, 8).learner.buckets.widths(10) == widths


def test_one_problem_is_one_line():
  with pytest.raises(ValueError, match=r'^seed: '):
    build_experiment(runs.config(seed=-1), 1)


def test_a_misspelled_key_cannot_be_set():
  with pytest.raises(AttributeError, match='divergence'):
    runs.config().trust_region.divergance = 'binary_kl'
