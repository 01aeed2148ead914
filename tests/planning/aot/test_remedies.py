import pytest

from dppo_jax.planning.aot import programs, remedies
from tests.support import runs

_SAMPLING, _TRAINING = programs.SAMPLING, programs.TRAINING


@pytest.fixture
def config():
  return runs.config(
    learner__num_minibatches=1, learner__num_microbatches=1
  ).to_dict()


def _value(config, change, path):
  section, key = path.split('.')
  return change.get(path, config[section][key])


def test_what_costs_only_time_comes_first(config):
  def estimate(change):
    return {_TRAINING: 100.0 if 'model.remat' in change else 1000.0}

  found = remedies.find_remedy(config, {_TRAINING: 100.0}, estimate)
  assert found == ({'model.remat': 'full'}, {_TRAINING: 100.0})


def test_the_fewest_microbatches_that_are_enough(config):
  def estimate(change):
    return {
      _TRAINING: 1000.0 / _value(config, change, 'learner.num_microbatches')
    }

  found = remedies.find_remedy(config, {_TRAINING: 260.0}, estimate)
  assert found == ({'learner.num_microbatches': 4}, {_TRAINING: 250.0})


def test_another_mesh_where_microbatches_are_not_enough(config):
  def estimate(change):
    parts = _value(config, change, 'learner.num_microbatches')
    tensor = _value(config, change, 'mesh.tensor')
    if parts * tensor > 16:  # Not legal.
      return None
    return {_TRAINING: 1000.0 / min(parts, 4) / tensor}

  found = remedies.find_remedy(config, {_TRAINING: 70.0}, estimate)
  assert found is not None
  assert found.change == {
    'mesh.data': 1,
    'mesh.fsdp': -1,
    'mesh.tensor': 4,
    'learner.num_microbatches': 4,
  }
  assert found.num_bytes == {_TRAINING: 62.5}
  assert remedies.find_remedy(config, {_TRAINING: 1.0}, estimate) is None


def test_a_mesh_that_is_spread_already_is_not_named(config):
  config['mesh'].update(data=1, fsdp=-1)

  def estimate(change):
    return {_TRAINING: 2.0 / _value(config, change, 'mesh.tensor')}

  found = remedies.find_remedy(config, {_TRAINING: 1.0}, estimate)
  assert found == ({'mesh.tensor': 2}, {_TRAINING: 1.0})


def test_sampling_takes_fewer_rows_at_once_before_all_else(config):
  def estimate(change):
    rows = _value(config, change, 'sampling.num_slots') or 32
    split = not _value(config, change, 'sampling.gather_fsdp')
    return {_SAMPLING: 10.0 * rows if split else 10.0 * rows + 1000.0}

  found = remedies.find_remedy(config, {_SAMPLING: 100.0}, estimate)
  assert found == ({'sampling.num_slots': 8}, {_SAMPLING: 80.0})
  config['sampling'].update(num_slots=8, gather_fsdp=True)
  found = remedies.find_remedy(config, {_SAMPLING: 25.0}, estimate)
  assert found is not None
  assert found.change == {
    'sampling.num_slots': 2,
    'sampling.gather_fsdp': False,
  }


def test_fewer_prompts_come_last(config):
  def estimate(change):
    return {_SAMPLING: 10.0 * _value(config, change, 'data.num_prompts')}

  found = remedies.find_remedy(config, {_SAMPLING: 45.0}, estimate)
  assert found == ({'data.num_prompts': 4}, {_SAMPLING: 40.0})


def test_phases_are_mended_together(config):
  """What training takes narrows down what sampling can take."""

  def estimate(change):
    tensor = _value(config, change, 'mesh.tensor')
    slots = _value(config, change, 'sampling.num_slots') or 32
    if slots % (8 // tensor):
      return None
    return {_TRAINING: 100.0 / tensor, _SAMPLING: 4.0 * slots}

  found = remedies.find_remedy(
    config, {_TRAINING: 50.0, _SAMPLING: 20.0}, estimate
  )
  assert found is not None
  assert found.change['mesh.tensor'] == 2
  assert found.change['sampling.num_slots'] == 4
  assert found.num_bytes == {_TRAINING: 50.0, _SAMPLING: 16.0}


def test_microbatches_that_a_mesh_does_not_divide_are_made_larger(config):
  config['learner']['num_microbatches'] = 8

  def estimate(change):
    parts = _value(config, change, 'learner.num_microbatches')
    return {_TRAINING: 1.0} if parts <= 2 else None

  found = remedies.find_remedy(config, {_TRAINING: 1.0}, estimate)
  assert found == ({'learner.num_microbatches': 2}, {_TRAINING: 1.0})


def test_changes_are_shown_as_flags():
  assert remedies.show({'mesh.fsdp': -1, 'mesh.tensor': 8}) == (
    '--config.mesh.fsdp=-1 --config.mesh.tensor=8'
  )
