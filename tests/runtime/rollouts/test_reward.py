"""What a rollout earns: terms, shaping and what the metrics say of them."""

import dataclasses

import numpy as np
import pytest

from dppo_jax.base import Rollout, TokenStats
from dppo_jax.rewards.shaping import ShapingConfig, parse_shaping
from dppo_jax.rewards.terms import Term
from dppo_jax.rewards.verdicts import Verdict
from dppo_jax.runtime.rollouts import reward
from dppo_jax.runtime.rollouts.reward_model import Scored
from dppo_jax.runtime.rollouts.verify import CompletionVerifier

_TERMS = (Term(1.0, 'math'), Term(0.5, 'mine.verify:form'))
_REASONS = [
  ['right', 'timeout', 'wrong', 'memory'],
  ['right', 'timeout', 'error: x', 'memory'],
]
_FOUND = [[Verdict(float(r == 'right'), r) for r in row] for row in _REASONS]


class _Pool:
  terms = _TERMS

  def verify_terms(self, completions, examples, truncated):
    assert len(completions) == len(examples) == len(truncated) == 4
    return _FOUND


class _Stream:
  def examples(self, ids):
    return [{'prompt': f'p{i}'} for i in range(len(ids))]


class _Tokenizer:
  def decode_batch(self, ids, mask):
    return [
      ' '.join(map(str, row[m])) for row, m in zip(ids, mask, strict=True)
    ]


@pytest.fixture
def rollout():
  lengths = np.array([2, 4, 6, 8])
  mask = np.arange(10) < 2 + lengths[:, None]
  mask[:, :2] = False
  return Rollout(
    tokens=np.ones((4, 10), np.int32),
    token_mask=mask,
    completion_mask=mask,
    stats=TokenStats(log_probs=np.zeros((4, 10), np.float32)),
    group_id=np.zeros(4),
    example_id=np.zeros(4, np.int32),
    truncated=np.zeros(4, bool),
  )


class _Model:
  weight = -2.0

  def score(self, prompts, completions):
    assert prompts == ['p0', 'p1', 'p2', 'p3']
    assert completions[:2] == ['1 1', '1 1 1 1']
    scores = np.array([0.5, 0.0, -1.0, 3.0])
    return Scored(scores, {'rewards/model_mean': 0.625})


def _verifier(pool, truncated='zero'):
  return CompletionVerifier(
    tokenizer=_Tokenizer(),
    stream=_Stream(),
    pool=pool,
    prompt_length=2,
    truncated=truncated,
  )


def _reward(rollout, shaping, model=None):
  return reward.reward(
    _verifier(_Pool()),
    rollout,
    4,
    ShapingConfig(terms=parse_shaping(shaping), max_length=8, cache=4),
    model=model,
  )


def test_lengths_are_added_to_the_sum(rollout):
  found = _reward(rollout, 'overlong')
  assert found.texts == ['1 1', '1 1 1 1', ' '.join('1' * 6), ' '.join('1' * 8)]
  assert found.verdicts == [
    (1.5, 'right'),
    (0.0, 'timeout'),
    (-0.5, 'wrong'),
    (-1.0, 'memory'),
  ]
  assert found.metrics['rewards/shaping'] == pytest.approx(-1.5 / 4)


def test_the_score_of_a_model_is_added_with_its_weight(rollout):
  found = _reward(rollout, 'overlong', _Model())
  assert found.verdicts == [
    (0.5, 'right'),
    (0.0, 'timeout'),
    (1.5, 'wrong'),
    (-7.0, 'memory'),
  ]
  assert found.metrics['rewards/model_mean'] == 0.625
  assert found.metrics['rewards/shaping'] == pytest.approx(-1.5 / 4)


def test_without_shaping_there_is_no_such_metric(rollout):
  found = _reward(rollout, 'none')
  assert [v.reward for v in found.verdicts] == [1.5, 0.0, 0.0, 0.0]
  assert 'rewards/shaping' not in found.metrics


def test_reasons_failures_and_terms_are_counted():
  metrics = reward.verdict_metrics(_TERMS, _FOUND)
  assert metrics['rewards/errors'] == 0.5  # One error, one out of memory.
  assert metrics['rewards/timeouts'] == 0.25
  assert metrics['rewards/term_math'] == 0.25
  assert metrics['rewards/term_form'] == 0.25
  shares = {k: v for k, v in metrics.items() if '/reason_' in k}
  assert sum(shares.values()) == pytest.approx(1.0)
  assert shares['rewards/reason_wrong'] == 0.25
  assert shares['rewards/reason_error'] == 0.0  # Not of the first term.


def test_a_single_term_is_not_told_twice():
  metrics = reward.verdict_metrics(_TERMS[:1], _FOUND[:1])
  assert not any('/term_' in name for name in metrics)


@pytest.mark.parametrize(
  ('truncated', 'told'),
  [('zero', [False, True, False, True]), ('score', [False] * 4)],
)
def test_verifiers_are_told_of_what_was_cut_or_not(rollout, truncated, told):
  class _Told(_Pool):
    def verify_terms(self, completions, examples, truncated):
      assert list(truncated) == told
      return _FOUND

  flags = np.array([False, True, False, True])
  reward.reward(
    _verifier(_Told(), truncated),
    dataclasses.replace(rollout, truncated=flags),
    4,
    ShapingConfig(terms=parse_shaping('none'), max_length=8, cache=4),
  )
