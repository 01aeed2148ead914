import shutil

import pytest

from dppo_jax.runtime.config import follow
from tests.support import published, runs

_TOKENIZER = published.MODELS.parent / 'tokenizer'


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  """Folder of a model with its tokenizer."""
  folder = tmp_path_factory.mktemp('models') / 'model'
  shutil.copytree(_TOKENIZER, folder)
  return str(folder)


def _resolve(**overrides):
  settings = {'sft__num_steps': follow.BY_DATA, **overrides}
  return follow.resolve(runs.config(**settings).to_dict())


def test_the_tokenizer_follows_the_model_where_it_has_one(model, tmp_path):
  assert _resolve(model__pretrained=model) == {
    'data': {'tokenizer': model},
    'sft': {'num_steps': 0},
  }
  assert 'data' not in _resolve(model__pretrained=str(tmp_path))
  named = _resolve(model__pretrained=model, data__tokenizer='~/other')
  assert named == {'sft': {'num_steps': 0}}


@pytest.mark.parametrize(
  ('overrides', 'expected'),
  [
    ({}, follow.WARM_START),
    (dict(data__source='math'), 0),
    (dict(data__mixture=(('math', '', 1.0),)), 0),
    (dict(data__tokenizer=str(_TOKENIZER)), 0),
  ],
)
def test_a_warm_start_where_there_are_demonstrations(overrides, expected):
  assert _resolve(**overrides)['sft'] == {'num_steps': expected}
  assert not _resolve(**overrides, sft__num_steps=7)


def test_an_experiment_and_what_is_recorded_of_it_are_resolved():
  config = runs.config(sft__num_steps=follow.BY_DATA)
  experiment = runs.experiment(config)
  assert experiment.sft.num_steps == follow.WARM_START
  assert experiment.resolved['sft']['num_steps'] == follow.WARM_START
  assert config.sft.num_steps == follow.BY_DATA  # Not in place.
