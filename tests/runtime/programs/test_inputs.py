"""A run that goes on reads what it was reading, wherever that lies now."""

import json
import shutil

import pytest

from dppo_jax.runtime.programs import inputs
from dppo_jax.runtime.storage import workdir
from tests.support import runs

_TOKENIZER = runs.ROOT / 'tests' / 'testdata' / 'tokenizer'


def _examples(number):
  return [{'example_id': i, 'prompt': f'{i}'} for i in range(number)]


def test_blocks_say_where_examples_differ():
  one, other = _examples(200), _examples(200)
  other[130] = {**other[130], 'level': '3'}
  digests = [inputs.digest_examples(each) for each in (one, other)]
  assert [len(each) for each in digests] == [4, 4]
  assert [a == b for a, b in zip(*digests, strict=True)] == [1, 1, 0, 1]

  def facts(examples):
    blocks = inputs.digest_examples(examples)
    return {'x': {'num_examples': len(examples), 'blocks': blocks}}

  (found,) = inputs.differences(facts(one), facts(other))
  assert found == (
    'x',
    'x: 200 examples; they differ among the 64 from 129',
  )
  (found,) = inputs.differences(facts(one), facts(one[:192]))
  assert found[1].startswith('x: 200 examples -> 192; they differ ')
  assert found[1].endswith(' from 193')
  assert list(inputs.differences(facts(one), facts(list(one)))) == []


def test_a_folder_is_its_content(tmp_path):
  one, two = tmp_path / 'a', tmp_path / 'b'
  one.mkdir()
  (one / 'config.json').write_text('{}')
  (one / 'notes.json').write_text('1')
  large = bytearray(6 * 2**20)
  (one / 'model.safetensors').write_bytes(large)
  shutil.copytree(one, two)
  patterns = ('config.json', '*.safetensors')

  def digest(folder):
    return inputs.digest_folder(str(folder), patterns)

  before = digest(one)
  assert before == digest(f'{two}/')
  (two / 'notes.json').write_text('2')
  assert before == digest(two)
  for place in (0, len(large) - 1):
    changed = bytearray(large)
    changed[place] = 1
    (two / 'model.safetensors').write_bytes(changed)
    assert digest(two) != before
  assert digest(tmp_path / 'none') == ''


def test_a_file_in_place_of_a_folder_is_its_content(tmp_path):
  path = tmp_path / 'm.gguf'
  assert inputs.digest_folder(str(path), ['tokenizer.json']) == ''
  path.write_text('one')
  first = inputs.digest_folder(str(path), ['tokenizer.json'])
  path.write_text('two')
  second = inputs.digest_folder(str(path), ['tokenizer.json'])
  assert '' not in (first, second)
  assert first != second


def test_what_is_gone_or_new_does_not_differ():
  known = {'data.tokenizer': 'a', 'model.pretrained': ''}
  assert list(inputs.differences(known, {'data.tokenizer': ''})) == []
  assert list(inputs.differences(known, {'model.pretrained': 'b'})) == []
  ((name, text),) = inputs.differences(known, {'data.tokenizer': 'b'})
  assert name == 'data.tokenizer'
  assert text.endswith('another content (a -> b)')


def _begun(folder, recorded):
  (folder / workdir.CHECKPOINTS / '1').mkdir(parents=True)
  (folder / workdir.INPUTS).write_text(json.dumps(recorded))


def test_weights_read_once_are_told_and_others_refused(tmp_path, capsys):
  recorded = {'model.pretrained': 'a', 'data.tokenizer': 'b'}
  _begun(tmp_path, recorded)
  inputs._settle({**recorded, 'model.pretrained': 'c'}, tmp_path)
  assert 'model.pretrained: its files' in capsys.readouterr().err
  assert workdir.read_json(tmp_path / workdir.INPUTS) == recorded
  with pytest.raises(ValueError, match=r'reading something else:\n  data\.tok'):
    inputs._settle({**recorded, 'data.tokenizer': 'c'}, tmp_path)
  # A folder that is gone stays on record.
  inputs._settle({'model.pretrained': ''}, tmp_path)
  assert workdir.read_json(tmp_path / workdir.INPUTS) == recorded


def _write(path, answers):
  path.parent.mkdir(exist_ok=True)
  path.write_text(
    ''.join(
      json.dumps({'prompt': f'{i} 1', 'answer': answer}) + '\n'
      for i, answer in enumerate(answers)
    )
  )
  return str(path)


def test_a_run_knows_its_data_by_content(tmp_path, capsys):
  settings = runs.smallest(
    data__source='rows',
    data__files=_write(tmp_path / 'a' / 'x.jsonl', [1, 2, 3, 4]),
    data__tokenizer=str(_TOKENIZER),
    data__max_prompt_length=40,
    evaluation__split='train',
    rewards__verifier='numeric',
  )
  folder = tmp_path / 'run'
  runs.run(settings, folder)
  assert set(workdir.read_json(folder / workdir.INPUTS)) == {
    'training data',
    'held-out data',
    'data.tokenizer',
  }
  settings.data.files = str(tmp_path / 'b' / 'y.jsonl')
  with pytest.raises(ValueError, match=r'^data\.files: no '):
    runs.run(settings, folder)
  (tmp_path / 'a').rename(tmp_path / 'b')
  settings.data.files = str(tmp_path / 'b' / 'x.jsonl')
  settings.data.tokenizer = f'{_TOKENIZER}/'
  runs.run(settings, folder)
  assert 'Finished already' in capsys.readouterr().err
  _write(tmp_path / 'b' / 'x.jsonl', [1, 2, 30, 4])
  with pytest.raises(
    ValueError, match=r'training data: 4 examples; they differ .* from 1\n'
  ):
    runs.run(settings, folder)
