import dataclasses

import numpy as np
import pytest

from dppo_jax.learner import state as state_lib
from dppo_jax.runtime.evaluation import samplers
from dppo_jax.runtime.programs.compiled import compile_sampler
from tests.support import runs


@pytest.fixture(scope='module')
def parts():
  return runs.parts(runs.smallest())


def _config(**overrides):
  settings = runs.smallest(**{'evaluation__top_p': 0.9, **overrides})
  settings.evaluation.greedy = True
  return runs.experiment(settings).evaluation


@pytest.mark.parametrize('num_slots', [0, 2])
def test_one_program_draws_what_two_do(parts, num_slots):
  config = _config(sampling__num_slots=num_slots)
  with runs.quick_compilation():
    state = state_lib.init_state(
      parts.policy, parts.optimizer, parts.shardings, 0
    )
    # Large logits: the likeliest token has a lead that rounding leaves it.
    params = {**state.params, 'embedding': 5 * state.params['embedding']}
    drawn = params, parts.held_out.first(4), state.key
    got = [
      sample(*drawn)
      for sample in samplers.compile_samplers(parts, config, None)
    ]
    expected = [
      compile_sampler(parts, dataclasses.replace(each, num_slots=0))(*drawn)
      for each in (config.sampled, config.greedy)
    ]
  for mine, theirs in zip(got, expected, strict=True):
    np.testing.assert_array_equal(mine.tokens, theirs.tokens)
    np.testing.assert_array_equal(mine.truncated, theirs.truncated)
  assert (np.asarray(got[0].tokens) != np.asarray(got[1].tokens)).any()
  # Sampled records are those of the law; greedily it has no other token.
  np.testing.assert_allclose(
    got[0].stats.log_probs, expected[0].stats.log_probs, atol=1e-5
  )
  assert not np.any(np.asarray(got[1].stats.log_probs))


def test_programs_that_differ_in_more_are_two(monkeypatch, parts):
  made = []

  def compile_one(parts, config):
    made.append((config.greedy, config.group_size))
    return len(made)

  monkeypatch.setattr(samplers, 'compile_sampler', compile_one)
  several = _config(evaluation__num_samples=3)
  assert samplers.compile_samplers(parts, several, None) == (1, 2)
  staged = _config(sampling__cache_columns=4)
  assert samplers.compile_samplers(parts, staged, None) == (3, 4)
  alone = dataclasses.replace(_config(), greedy=None)
  assert samplers.compile_samplers(parts, alone, None) == (5, None)
  assert made == [(False, 3), (True, 1), (False, 1), (True, 1), (False, 1)]


def test_conversations_have_their_own(monkeypatch, parts):
  monkeypatch.setattr(
    samplers, 'ConversationSampler', lambda *args: args[2].greedy
  )
  config = _config()
  environment = dataclasses.replace(config.environment, name='x')
  config = dataclasses.replace(config, environment=environment)
  assert samplers.compile_samplers(parts, config, None) == (False, True)
