"""Sampling as the loop does it: stop strings and attempts at more groups."""

import numpy as np
import pytest

from dppo_jax.learner import state as state_lib
from dppo_jax.rewards.terms import Term
from dppo_jax.rewards.verdicts import Verdict
from dppo_jax.runtime.programs import compiled
from dppo_jax.runtime.reporting.recorder import Stopwatch
from dppo_jax.runtime.rollouts import collect as collect_lib
from tests.support import runs


class _Pool:
  """Rewards a completion by the parity of its words; counts its calls."""

  terms = (Term(1.0, 'exact_match'),)

  def __init__(self):
    self.completions = []

  def verify_terms(self, completions, examples, truncated):
    del examples, truncated
    self.completions.append(completions)
    parity = [float(len(c.split()) % 2) for c in completions]
    return [[Verdict(reward, 'right') for reward in parity]]


@pytest.fixture(scope='module')
def collect():
  """(overrides, step) -> what is collected, and what was verified."""

  def run(step=0, **overrides):
    settings = runs.smallest(data__num_prompts=8, **overrides)
    parts = runs.parts(settings)
    pool = _Pool()
    with runs.quick_compilation():
      state = state_lib.init_state(
        parts.policy, parts.optimizer, parts.shardings, 0
      )
      state = state.replace(step=state.step + step)
      function = collect_lib.compile_collection(
        runs.experiment(settings), parts, pool
      )
      return function(state, Stopwatch())[0], pool.completions

  return run


@pytest.fixture(scope='module')
def plain(collect):
  return collect()


def test_without_resampling_there_is_one_batch(plain, collect):
  collected, seen = plain
  assert collected.num_attempts == len(seen) == 1
  assert not collected.varied.all()
  dropped, _ = collect(data__dynamic_sampling='drop')
  np.testing.assert_array_equal(
    dropped.drawn.rollout.tokens, collected.drawn.rollout.tokens
  )


def test_resampling_fills_up_and_begins_with_the_plain_batch(plain, collect):
  collected, seen = collect(data__dynamic_sampling='resample')
  before = plain[0]
  assert seen[0] == plain[1][0]
  assert collected.num_attempts == len(seen) > 1
  assert collected.varied.sum() > before.varied.sum()
  kept = np.repeat(before.varied, 2)
  for got, had in (
    (collected.drawn.rollout.tokens, before.drawn.rollout.tokens),
    (collected.drawn.on_host.example_id, before.drawn.on_host.example_id),
  ):
    np.testing.assert_array_equal(np.asarray(got)[kept], np.asarray(had)[kept])
    assert (np.asarray(got)[~kept] != np.asarray(had)[~kept]).any()
  assert len(set(collected.drawn.on_host.example_id.tolist())) == 8
  texts = [c for batch in seen for c in batch]
  assert set(collected.drawn.completions) <= set(texts)
  again, _ = collect(data__dynamic_sampling='resample')
  np.testing.assert_array_equal(
    again.drawn.rollout.tokens, collected.drawn.rollout.tokens
  )
  assert again.drawn.verdicts == collected.drawn.verdicts


def test_fewer_slots_sample_the_same(plain, collect):
  before = plain[0]
  collected, seen = collect(sampling__num_slots=2)
  assert seen == plain[1]
  np.testing.assert_array_equal(
    collected.drawn.rollout.tokens, before.drawn.rollout.tokens
  )
  assert before.useful_decode_share < collected.useful_decode_share <= 1


def test_attempts_have_a_limit(plain, collect):
  collected, seen = collect(
    data__dynamic_sampling='resample', data__max_resampling=1
  )
  assert collected.num_attempts == len(seen) <= 2


def test_steps_differ(plain, collect):
  other, _ = collect(step=1)
  assert (
    other.drawn.on_host.example_id != plain[0].drawn.on_host.example_id
  ).any()


def test_stop_strings_end_completions(plain, collect):
  stopped, seen = collect(
    sampling__stop_strings=('3', '5'), sampling__num_slots=2
  )
  before = plain[0].drawn
  after = stopped.drawn
  for had, got in zip(before.completions, after.completions, strict=True):
    ends = [had.index(s) + 1 for s in ('3', '5') if s in had]
    assert got == (had[: min(ends)] if ends else had)
  assert seen[0] == after.completions
  ended = np.array([text.endswith(('3', '5')) for text in after.completions])
  assert ended.any()
  assert not np.asarray(after.rollout.truncated)[ended].any()
  np.testing.assert_array_equal(
    np.asarray(after.rollout.completion_mask), after.on_host.completion_mask
  )
  words = [len(text.split()) for text in after.completions]
  np.testing.assert_array_equal(
    after.on_host.completion_mask.sum(axis=1)[ended], np.array(words)[ended]
  )
  # Their tokens end decoding on the device: slots go on with other rows.
  assert stopped.useful_decode_share > 0.9  # Cut on the host alone: 0.27.
  kept = after.on_host.completion_mask
  for name in ('log_probs', 'entropy', 'top_log_probs'):
    np.testing.assert_allclose(
      np.asarray(getattr(after.rollout.stats, name))[kept],
      np.asarray(getattr(before.rollout.stats, name))[kept],
      atol=1e-6,
    )


def test_every_attempt_has_its_prompts_and_its_key(monkeypatch, collect):
  asked = []
  compile_sampler = compiled.compile_sampler

  def compile_spy(parts, config):
    sampler = compile_sampler(parts, config)

    def spy(params, prompts, key):
      attempt = len(asked)
      expected = parts.prompts.batch(0, attempt).example_id
      np.testing.assert_array_equal(prompts.example_id, expected)
      asked.append(tuple(np.asarray(key).tolist()))
      return sampler(params, prompts, key)

    return spy

  monkeypatch.setattr(compiled, 'compile_sampler', compile_spy)
  # The likeliest tokens alone: no group is varied, and all attempts are made.
  collected, _ = collect(
    data__dynamic_sampling='resample',
    data__max_resampling=3,
    sampling__temperature=1e-6,
  )
  assert len(set(asked)) == len(asked) == collected.num_attempts == 4
  assert not collected.varied.any()
