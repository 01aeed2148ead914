import pytest

from dppo_jax.planning.aot import programs, remedies
from tests.support import runs


@pytest.fixture
def config():
  return runs.config(learner__num_minibatches=1).to_dict()


def test_a_change_leaves_the_config_as_it_is(config):
  changed = remedies.apply(config, {'model.remat': 'full', 'mesh.tensor': 2})
  assert changed['model']['remat'] == 'full'
  assert changed['mesh']['tensor'] == 2
  assert config['model']['remat'] == 'none'
  assert config['mesh']['tensor'] == 1


def test_what_costs_only_time_comes_first(config):
  def estimate(changed):
    return 100.0 if changed['model']['remat'] == 'full' else 1000.0

  found = remedies.find_change(config, 1, programs.TRAINING, 100.0, estimate)
  assert found == ({'model.remat': 'full'}, 100.0)


def test_a_change_is_enough_and_legal(config):
  seen = []

  def estimate(changed):
    seen.append(changed['learner']['num_microbatches'])
    return 1000.0 / changed['learner']['num_microbatches']

  found = remedies.find_change(config, 8, programs.TRAINING, 260.0, estimate)
  assert found == ({'learner.num_microbatches': 4}, 250.0)
  # 32 rows, 8 devices: 8 parts need devices that share a row.
  found = remedies.find_change(config, 8, programs.TRAINING, 130.0, estimate)
  assert found is not None
  assert found[0]['mesh.tensor'] == 2
  assert found[1] == 125.0
  # More of them share no row: there are two heads of keys.
  found = remedies.find_change(config, 8, programs.TRAINING, 100.0, estimate)
  assert found is None
  assert max(seen) == 8


def test_sampling_takes_fewer_prompts_and_nothing_of_the_learner(config):
  def estimate(changed):
    assert changed['learner'] == config['learner']
    return 10.0 * changed['data']['num_prompts']

  found = remedies.find_change(config, 1, programs.SAMPLING, 45.0, estimate)
  assert found == ({'data.num_prompts': 4}, 40.0)


def test_sampling_takes_fewer_slots_before_all_else(config):
  def estimate(changed):
    return 10.0 * (changed['sampling']['num_slots'] or 32)

  found = remedies.find_change(config, 8, programs.SAMPLING, 100.0, estimate)
  assert found == ({'sampling.num_slots': 8}, 80.0)
  config['sampling']['num_slots'] = 8
  found = remedies.find_change(config, 1, programs.SAMPLING, 25.0, estimate)
  assert found == ({'sampling.num_slots': 2}, 20.0)
  # None is all of them.
  assert (
    remedies.find_change(config, 1, programs.SAMPLING, 5.0, estimate) is None
  )


def test_changes_are_shown_as_flags():
  assert remedies.show({'mesh.fsdp': -1, 'mesh.tensor': 8}) == (
    '--config.mesh.fsdp=-1 --config.mesh.tensor=8'
  )
