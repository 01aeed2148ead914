import jax
import numpy as np

from dppo_jax.learner import state as state_lib
from dppo_jax.runtime.iteration import compile_iteration
from dppo_jax.runtime.ledger.files import LedgerWriter, load_steps
from dppo_jax.runtime.rollouts.ahead import RolloutQueue
from dppo_jax.runtime.rollouts.verify import open_pool
from tests.support import runs


def test_a_step_updates_and_reports_what_it_trained_on(tmp_path):
  settings = runs.smallest(ledger__every_n_steps=1)
  experiment, parts = runs.experiment(settings), runs.parts(settings)
  ledger = LedgerWriter(tmp_path, experiment.ledger.every_n_steps, None)
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
  rewards = [sample.reward for sample in samples]
  assert len(samples) == 8
  np.testing.assert_allclose(metrics['rewards/mean'], np.mean(rewards))
  assert metrics['rollout/lag'] == 0
  record = load_steps(tmp_path, '1')
  assert list(record.completions) == [sample.completion for sample in samples]
