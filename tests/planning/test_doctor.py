import dataclasses
import json
import pathlib
import shutil
from unittest import mock

import pytest

from dppo_jax.planning import doctor, memory
from tests.support import runs

_TOKENIZER = pathlib.Path(__file__).parents[1] / 'testdata' / 'tokenizer'


def _examine(settings):
  """Findings by check, and what was told."""
  told = []
  with runs.quick_compilation():
    found = doctor.examine(settings, 1, 8, told.append)
  return {finding.check: finding for finding in found}, told


@pytest.fixture(scope='module')
def healthy():
  return _examine(runs.config())


def test_a_healthy_config_passes(healthy):
  found, _ = healthy
  assert set(found) == {
    'config',
    'end token',
    'float32 products',
    'temperature',
    'top-p',
    'microbatch',
    'extraction',
    'held-out prompts',
    'chat template round trip',
    'memory',
    'truncation',
    'verifier',
    'zero-variance groups',
    'recorded K',
    'sampler against trainer',
  }
  assert 'error' not in {finding.level for finding in found.values()}
  assert found['sampler against trainer'].level == 'ok'


def test_the_doctor_says_what_it_does(healthy):
  _, told = healthy
  steps = [line for line in told if line[:2] not in ('ok', 'WA', 'ER')]
  assert steps == [
    'Reading the config and locating its files',
    'Reading the data',
    'Loading the initial policy',
    'Sampling 4 completions of up to 7 tokens for 8 prompts',
    'Verifying',
    'Scoring the same tokens with the trainer',
  ]
  # Each finding as it is made, not all at the end.
  assert told.index('Reading the data') < told.index('Verifying')
  assert told[1].startswith('ok      config')


@pytest.mark.parametrize(
  ('overrides', 'check', 'cause'),
  [
    (dict(sampling__top_k=99), 'config', 'sampling.top_k: got 99'),
    (dict(learner__num_microbatches=3), 'config', 'num_microbatches: got 3'),
    (dict(data__tokenizer='/nowhere'), 'data.tokenizer', 'no tokenizer.json'),
    (dict(model__pretrained='/no/model'), 'model.pretrained', 'no config.json'),
    (dict(data__source='rows', data__files='/no.jsonl'), 'data.files', 'no.js'),
    (dict(data__max_prompt_length=1), 'data', 'max_prompt_length'),
  ],
)
def test_what_cannot_start_is_found_at_once(overrides, check, cause):
  found, told = _examine(runs.config(**overrides))
  assert found[check].level == 'error'
  assert cause in found[check].cause
  assert found[check].fix
  assert not [line for line in told if line.startswith('Sampling')]


def test_without_memory_nothing_is_sampled():
  with mock.patch.object(memory, 'capacity', return_value=1000.0):
    found, told = _examine(runs.config())
  assert found['memory'].level == 'error'
  assert told[-1] == 'Not sampling: fix the errors first'


def test_a_policy_that_never_earns_is_found():
  settings = runs.smallest(
    data__num_prompts=8, data__group_size=4, rewards__verifier='think_answer'
  )
  found, _ = _examine(settings)
  assert found['zero-variance groups'].level == 'error'


def test_an_adapter_is_sampled_on_its_frozen_weights():
  settings = runs.smallest(
    data__num_prompts=8, data__group_size=4, lora__rank=2, sft__num_steps=0
  )
  found, _ = _examine(settings)
  assert found['sampler against trainer'].level == 'ok'


@pytest.mark.slow
def test_a_trainer_at_another_temperature_is_found():
  settings = runs.config(model__init_scale=1.0)
  experiment = runs.experiment(settings)
  loss = dataclasses.replace(experiment.loss, temperature=0.5)
  sick = dataclasses.replace(experiment, loss=loss)
  with mock.patch.object(doctor, 'build_experiment', return_value=sick):
    found, told = _examine(settings)
  assert found['temperature'].level == 'error'
  assert 'sampled at 1, trained at 0.5' in found['temperature'].cause
  # And in the numbers, whatever the settings say.
  with runs.quick_compilation():
    parts = runs.parts(settings)
    numbers = doctor.check_sample(sick, parts, 8, told.append)
    levels = {finding.check: finding.level for finding in numbers}
  assert levels['sampler against trainer'] == 'error'


def _chat(folder, tmp_path, template):
  """Findings on a chat whose template is `template`, '' for its own."""
  rows = tmp_path / 'rows.jsonl'
  rows.write_text(json.dumps({'prompt': 'What is 1 + 1?', 'answer': '2'}))
  settings = runs.smallest(
    data__tokenizer=str(folder),
    data__chat_template=True,
    data__source='rows',
    data__files=str(rows),
    data__max_prompt_length=64,
    evaluation__split='train',
    model__vocab_size=320,
  )
  if template:
    (folder / 'chat_template.jinja').write_text(template)
  experiment = runs.experiment(settings)
  with runs.quick_compilation():
    parts = runs.parts(settings)
    return {
      finding.check: finding.level
      for finding in doctor.check_prompts(experiment, parts)
    }


@pytest.mark.parametrize(
  ('template', 'level', 'end'),
  [
    ('', 'ok', 'warning'),  # It does not write what the assistant says.
    (
      "{{ '<|im_start|>' + messages[-1]['content'] + '<|im_end|>' }}",
      'error',
      'ok',
    ),
  ],
)
def test_the_turn_of_the_assistant(tmp_path, template, level, end):
  folder = shutil.copytree(_TOKENIZER, tmp_path / 'tokenizer')
  assert _chat(folder, tmp_path, template) == {
    'chat template round trip': 'ok',
    'generation prompt': level,
    'special tokens in problems': 'ok',
    "end of the assistant's turn": end,
  }


@pytest.mark.parametrize(
  ('mark', 'level'), [('<|im_end|>', 'ok'), ('<|im_start|>', 'warning')]
)
def test_the_end_of_the_turn_is_compared_with_the_end_ids(
  tmp_path, mark, level
):
  folder = shutil.copytree(_TOKENIZER, tmp_path / 'tokenizer')
  template = f'{{% for m in messages %}}{{{{ m.content }}}}{mark}{{% endfor %}}'
  found = _chat(folder, tmp_path, template)
  assert found["end of the assistant's turn"] == level


def test_a_tokenizer_that_changes_words_is_found(tmp_path):
  folder = shutil.copytree(_TOKENIZER, tmp_path / 'tokenizer')
  path = folder / 'tokenizer.json'
  raw = json.loads(path.read_text())
  raw['normalizer'] = {'type': 'Lowercase'}
  path.write_text(json.dumps(raw))
  found = _chat(folder, tmp_path, '')
  assert found['chat template round trip'] == 'error'
