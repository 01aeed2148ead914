import dataclasses

import jax
import numpy as np

from dppo_jax.analysis.ledger import replay
from dppo_jax.learner import state as state_lib
from dppo_jax.runtime.iteration import compile_iteration
from dppo_jax.runtime.ledger.files import LedgerWriter, load_steps
from dppo_jax.runtime.rollouts.ahead import RolloutQueue
from dppo_jax.runtime.rollouts.verify import open_pool
from tests.support import runs


def _iterate(settings, folder):
  """(metrics, samples) of a step; its parameters have moved."""
  experiment, parts = runs.experiment(settings), runs.parts(settings)
  ledger = LedgerWriter(folder, experiment.ledger.every_n_steps, None)
  called = []
  with runs.quick_compilation(), open_pool(experiment.rewards) as pool:
    state = state_lib.init_state(
      parts.policy, parts.optimizer, parts.shardings, 0
    )
    before = jax.device_get(state.params['embedding'])
    iterate = compile_iteration(
      experiment,
      parts,
      pool,
      None,
      None,
      ledger,
      RolloutQueue(experiment, parts),
    )
    state, metrics, samples = iterate(state, lambda: called.append(1))
  assert int(state.step) == len(called) == 1
  assert (jax.device_get(state.params['embedding']) != before).any()
  return metrics, samples


def test_a_step_updates_and_reports_what_it_trained_on(tmp_path):
  settings = runs.smallest(ledger__every_n_steps=1)
  metrics, samples = _iterate(settings, tmp_path)
  rewards = [sample.reward for sample in samples]
  assert len(samples) == 8
  np.testing.assert_allclose(metrics['rewards/mean'], np.mean(rewards))
  assert metrics['rollout/lag'] == 0
  record = load_steps(tmp_path, '1')
  assert list(record.completions) == [sample.completion for sample in samples]


def test_a_filtered_step_is_on_the_law_that_was_sampled(tmp_path):
  """And its exact TV is that of the ledger, whose K hold the whole support."""
  settings = runs.smallest(
    ledger__every_n_steps=1,
    sampling__support_top_k=5,
    sampling__support_top_p=0.9,
    sampling__temperature=0.5,
    trust_region__divergence='exact_tv',
    learner__num_minibatches=2,
    optimizer__learning_rate=0.02,
    objective__entropy_coefficient=0.1,  # Rewards are equal at random.
  )
  metrics, _ = _iterate(settings, tmp_path)
  record = load_steps(tmp_path, '1')
  first = (record.update == 0)[record.row]
  np.testing.assert_allclose(
    record.log_probs[first], record.rollout_log_probs[first], atol=1e-4
  )
  assert 1 < metrics['rollout/support'] <= 5
  np.testing.assert_allclose(metrics['rollout/support'], record.support.mean())
  full = (record.support == 5).mean()
  np.testing.assert_allclose(metrics['rollout/support_full'], full)
  listed = np.arange(5) < record.support[:, None]
  mass = np.exp(record.rollout_top_log_probs)
  assert (mass[~listed] == 0).all()
  np.testing.assert_allclose(mass.sum(1), 1.0, atol=1e-5)
  assert record.divergence[~first].max() > 1e-3
  rule = replay.Rule('', runs.experiment(settings).loss)
  top = replay.Rule('', dataclasses.replace(rule.loss, divergence='topk_tv'))
  np.testing.assert_allclose(
    replay.decide(record, top).divergence, record.divergence, atol=1e-5
  )
  assert 'divergence on exact_kl' in [
    relative.name for relative in replay.relatives(record, rule)
  ]
