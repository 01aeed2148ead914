import re

import pytest

from dppo_jax.configs import default, quickstart, tiny
from dppo_jax.ops.advantages import NEED_OTHERS
from dppo_jax.runtime.config import build
from dppo_jax.runtime.config import problems as problems_lib
from tests.support import runs


@pytest.mark.parametrize('module', [default, quickstart, tiny])
def test_the_configs_are_fine(module):
  config = module.get_config().to_dict()
  assert problems_lib.find_problems(config, num_devices=1) == []


def _problems(num_devices=1, **overrides):
  settings = runs.config(**overrides).to_dict()
  return problems_lib.find_problems(settings, num_devices)


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (
      dict(rewards__verifier='exact_mach'),
      "rewards.verifier: unknown 'exact_mach'; did you mean 'exact_match'?",
    ),
    (
      dict(rewards__verifier='math'),
      "rewards.num_workers: got 0 for the verifier 'math'; one that may hang",
    ),
    (
      dict(rewards__verifier='numeric + x*one_boxed'),
      "rewards.verifier: got the weight 'x'",
    ),
    (
      dict(rewards__extraction='boxed, hash'),
      "rewards.extraction: unknown 'hash' in 'boxed, hash'",
    ),
    (
      dict(rewards__shaping='overlon'),
      "rewards.shaping: unknown 'overlon'; did you mean 'overlong'?",
    ),
    (
      dict(rewards__shaping='0.5*overlong'),
      'rewards.overlong_cache: got 0; with rewards.shaping=',
    ),
    (
      dict(rewards__shaping='overlong', rewards__overlong_cache=8),
      "rewards.overlong_cache: got 8; with rewards.shaping='overlong' at"
      ' least 1 and at most sampling.max_completion_length=7.',
    ),
    (
      dict(rewards__memory_limit_mb=64),
      'rewards.memory_limit_mb: got 64; a whole number of at least 256.',
    ),
    (
      dict(evaluation__samples_per_pass=0),
      'evaluation.samples_per_pass: got 0; a whole number of at least 1.',
    ),
    (
      dict(evaluation__confidence=1.0),
      'evaluation.confidence: got 1.0; a number above 0',
    ),
    (
      dict(rewards__verifier='mine:verify'),
      "rewards.num_workers: got 0 for the verifier 'mine:verify'; a user"
      ' function needs at least 1',
    ),
    (
      dict(learner__num_minibatches=3),
      'learner.num_minibatches: got 3; minibatches are made of whole groups,'
      ' so it must divide data.num_prompts=8.',
    ),
    (
      dict(learner__num_microbatches=3),
      'learner.num_microbatches: got 3; a minibatch has 16 rows (4 prompts of'
      ' data.group_size=4), which it must divide.',
    ),
    (
      dict(sampling__top_k=17),
      "sampling.top_k: got 17; the vocabulary of task 'running_sum' has 16"
      ' tokens',
    ),
    (
      dict(sampling__top_k=0),
      "trust_region.divergence: 'topk_tv' reads the top-K log-probs and"
      " sampling.top_k=0 records none; set it to 20, or use 'binary_tv'",
    ),
    (
      dict(trust_region__delta_high=1.5),
      "trust_region.delta_high: got 1.5; 'topk_tv' is a probability",
    ),
    (
      dict(sampling__max_completion_length=1),
      'sampling.max_completion_length: got 1; right completions of task'
      " 'running_sum' take up to",
    ),
    (
      dict(model__num_kv_heads=3),
      'model.num_kv_heads: got 3; it must divide model.num_heads=4.',
    ),
    (
      dict(model__scan_unroll=3),
      'model.scan_unroll: got 3; it must divide model.num_layers=2.',
    ),
    (
      dict(model__vocab_size=15),
      "data.tokenizer: 'the words of task running_sum' has ids up to 15",
    ),
    (
      dict(model__num_experts=4),
      'model.num_experts_per_tok: got 8; at most model.num_experts=4.',
    ),
    (
      dict(model__mlp_only_layers=(2,)),
      'model.mlp_only_layers: got 2; numbers of layers, from 0 to 1.',
    ),
    (dict(model__head_dim=7), 'model.head_dim: got 7; it must be even.'),
    (
      dict(model__rope_scaling='llama3', model__rope_high_frequency_factor=0.5),
      'model.rope_low_frequency_factor: got 1.0; it must be above 0 and below'
      ' model.rope_high_frequency_factor=0.5.',
    ),
    (
      dict(mesh__tensor=3),
      'mesh: data=-1, fsdp=1, tensor=3, expert=1 does not multiply to the 1',
    ),
    (
      dict(
        checkpoints__best_metric='evaluation/greedy_accuracy',
        evaluation__greedy=False,
      ),
      "checkpoints.best_metric: 'evaluation/greedy_accuracy' is not measured"
      ' with evaluation.greedy=False',
    ),
    (
      dict(evaluation__split='validation[:0]'),
      "evaluation.split: unknown 'validation[:0]'; did you mean 'validation'?",
    ),
  ],
  ids=lambda value: '-'.join(value) if isinstance(value, dict) else '',
)
def test_parts_must_fit(overrides, message):
  (problem,) = _problems(**overrides)
  assert problem.startswith(message)


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (
      dict(data__num_prompts=4, learner__num_minibatches=1),
      'data.num_prompts: got 4, which the 8 batch shards of the mesh do not'
      ' divide; the nearest that fits is 8.',
    ),
    (
      dict(learner__num_microbatches=4),
      'learner.num_microbatches: a microbatch has 4 rows, which the 8 batch'
      ' shards of the mesh (data times fsdp times expert) do not divide',
    ),
    (
      dict(evaluation__num_prompts=12),
      'evaluation.num_prompts: got 12, which the 8 batch shards',
    ),
    (
      dict(mesh__expert=4),
      'mesh.expert: got 4, and model.num_experts=0 leaves nothing to split',
    ),
    (
      dict(mesh__expert=4, model__num_experts=10),
      'mesh.expert: got 4, which does not divide model.num_experts=10; the'
      ' nearest that divides the model and the 8 devices: 2.',
    ),
    (
      dict(mesh__tensor=4),
      'mesh.tensor: got 4, which does not divide model.num_kv_heads=2; the'
      ' nearest that divides the model and the 8 devices: 2.',
    ),
  ],
  ids=lambda value: '-'.join(value) if isinstance(value, dict) else '',
)
def test_parts_must_fit_the_mesh(overrides, message):
  (problem,) = _problems(num_devices=8, **overrides)
  assert problem.startswith(message)


def test_all_problems_are_reported_together():
  settings = runs.config(
    trust_region__divergence='binray_kl',
    sampling__temperature=0.0,
    data__num_prompts=0,
  )
  with pytest.raises(ValueError, match='3 problems in the config') as caught:
    build.build_experiment(settings, 1)
  for path in ('divergence', 'temperature', 'num_prompts'):
    assert re.search(rf'^  \w+\.{path}: ', str(caught.value), re.MULTILINE)


@pytest.mark.parametrize('estimator', sorted(NEED_OTHERS))
def test_a_group_of_one_has_nothing_to_compare(estimator):
  problems = _problems(
    **{'data.group_size': 1, 'advantages.estimator': estimator}
  )
  assert any(
    p.startswith('data.group_size: got 1') and estimator in p for p in problems
  )
