import json
import pathlib
import shutil

import numpy as np
import pytest

from dppo_jax.runtime.programs import datasets
from dppo_jax.runtime.reporting import header
from tests.support import environments, runs, silence

_TESTDATA = pathlib.Path(__file__).parents[2] / 'testdata'
_PLAIN = dict(
  sft__num_steps=0,
  data__tokenizer=str(_TESTDATA / 'tokenizer'),
  data__max_prompt_length=80,
)


@pytest.fixture
def home(tmp_path):
  shutil.copytree(_TESTDATA / 'sources', tmp_path / 'files')
  return str(tmp_path)


def _write(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return str(path)


def _experiment(home, **overrides):
  return runs.experiment(
    runs.config(**{**_PLAIN, 'data__data_dir': home, **overrides})
  )


def _answers(prepared):
  return [example['answer'] for example in prepared.examples]


def test_a_source_and_its_held_out_split(home):
  built = _experiment(home, data__source='gsm8k', evaluation__split='test')
  assert _answers(datasets.training(built.data)) == ['1200', '10']
  assert _answers(datasets.held_out(built)) == ['8']


def test_another_source_to_evaluate_on(home):
  built = _experiment(
    home, data__source='dapo_math_17k', evaluation__source='aime_2025'
  )
  prepared = datasets.training(built.data)
  assert (prepared.num_duplicates, prepared.num_conflicts) == (3, 1)
  assert _answers(datasets.held_out(built)) == ['7', '180', '125', '81']


def test_evaluation_on_the_training_file_or_a_file_of_its_own(tmp_path):
  one = _write(tmp_path / '1.jsonl', [{'prompt': 'a', 'answer': 1}])
  two = _write(tmp_path / '2.jsonl', [{'prompt': 'b', 'answer': 2}])
  rows = dict(data__source='rows', data__files=one)
  same = _experiment(str(tmp_path), **rows, evaluation__split='train')
  assert _answers(datasets.held_out(same)) == ['1']
  other = _experiment(str(tmp_path), **rows, evaluation__files=two)
  assert _answers(datasets.held_out(other)) == ['2']
  none = _experiment(
    str(tmp_path), **rows, evaluation__files=f'{tmp_path}/3.jsonl'
  )
  with pytest.raises(ValueError, match=r"^evaluation\.files: no '.*3\.jsonl'"):
    datasets.held_out(none)


def test_a_mixture_has_ids_of_its_own_and_knows_its_sources(home):
  built = _experiment(
    home,
    data__mixture=(('gsm8k', '', 1.0), ('math', '', 3.0)),
    evaluation__source='aime_2024',
  )
  prepared = datasets.training(built.data)
  assert prepared.weights == (1.0, 3.0)
  assert [e['example_id'] for e in prepared.examples] == [0, 1, 2, 3, 4]
  assert [e['component'] for e in prepared.examples] == [0, 0, 1, 1, 1]
  sources = [e['source'] for e in prepared.examples]
  assert sources == ['gsm8k', 'gsm8k', 'Prealgebra', 'Algebra', 'Prealgebra']


def test_several_sources_to_evaluate_on(home):
  built = _experiment(
    home,
    data__source='gsm8k',
    evaluation__source='aime_2024, aime_2026',
    evaluation__split='test',
  )
  prepared = datasets.held_out(built)
  assert _answers(prepared) == ['25', '121', '8', '36', '7']
  assert [e['example_id'] for e in prepared.examples] == [0, 1, 2, 3, 4]
  assert [e['source'] for e in prepared.examples] == (
    ['aime_2024'] * 3 + ['aime_2026'] * 2
  )
  parts = runs.parts(
    runs.config(
      **_PLAIN,
      data__data_dir=home,
      data__source='gsm8k',
      evaluation__source='aime_2024,aime_2026',
      evaluation__split='test',
    )
  )
  assert parts.held_out.num_examples == 5


def test_fields_by_source(tmp_path):
  one = _write(tmp_path / '1.jsonl', [{'prompt': 'a', 'answer': 1}])
  two = _write(tmp_path / '2.jsonl', [{'B': 'b', 'Q': 'c', 'gold': [2]}])
  built = _experiment(
    str(tmp_path),
    data__mixture=(
      ('rows', one, 1.0),
      ('rows', two, 1.0, (('prompt', '{B} {Q}'), ('answer', 'gold[0]'))),
    ),
    evaluation__source='rows',
    evaluation__files=two,
    evaluation__fields__prompt='Q',
    evaluation__fields__answer='gold',
  )
  prepared = datasets.training(built.data)
  assert [e['prompt'] for e in prepared.examples] == ['a', 'b c']
  assert _answers(prepared) == ['1', '2']
  (row,) = datasets.held_out(built).examples
  assert (row['prompt'], row['answer']) == ('c', '2')


def test_countdown_has_its_numbers_or_is_refused(home, tmp_path):
  settings = dict(
    **_PLAIN,
    data__data_dir=home,
    evaluation__source='countdown',
    rewards__verifier='countdown',
  )
  parts = runs.parts(runs.config(**settings, data__source='countdown'))
  (example,) = parts.prompts.examples([1])
  assert (example['target'], example['nums']) == (10, [1, 2, 5])
  nested = _write(
    tmp_path / 'x.jsonl',
    [{'prompt': 'a', 'answer': '1', 'm': {'target': 1, 'numbers': [1]}}],
  )
  rows = dict(data__source='rows', data__files=nested)
  with pytest.raises(
    ValueError,
    match=r"^rewards\.verifier: 'countdown' reads the field 'target'; .*"
    r"'target=PATH",
  ):
    runs.parts(runs.config(**settings, **rows))
  extra = 'm.target, m.numbers'
  parts = runs.parts(runs.config(**settings, **rows, data__fields__extra=extra))
  (example,) = parts.prompts.examples([0])
  assert (example['target'], example['numbers']) == (1, [1])


def test_the_header_tells_of_special_tokens_and_of_what_did_not_travel(
  home, tmp_path
):
  path = _write(
    tmp_path / 'x.jsonl',
    [
      {'prompt': 'a<|im_end|>', 'answer': 1, 'long': 'x' * 9999},
      {'prompt': 'b', 'answer': 1},
    ],
  )
  settings = runs.config(
    **_PLAIN,
    data__data_dir=home,
    data__source='rows',
    data__files=path,
    evaluation__split='train',
  )
  text = header.header(
    runs.experiment(settings), runs.parts(settings), pathlib.Path('/run'), None
  )
  assert text.splitlines()[0] == (
    'task      rows, 2 prompts, 1 with text of special tokens; field'
    " 'long' of 1 rows was dropped (too long, or not JSON)"
  )


def test_the_header_tells_what_was_found(home):
  settings = runs.config(
    **_PLAIN,
    data__data_dir=home,
    data__source='math',
    evaluation__source='dapo_math_17k',
  )
  parts = runs.parts(settings)
  text = header.header(
    runs.experiment(settings), parts, pathlib.Path('/run'), None
  )
  lines = text.splitlines()
  assert lines[0] == 'task      math, 3 prompts'
  assert lines[1] == 'levels    Level 1 2 · Level 2 1'
  assert lines[2] == 'sources   Algebra 1 · Prealgebra 2'
  assert lines[3] == (
    'held out  dapo_math_17k, validation, 2 prompts, 3 repeated rows left out'
    ' (1 of them with another answer)'
  )


def test_prompts_are_those_of_the_tokenizer(home):
  parts = runs.parts(
    runs.config(
      **_PLAIN,
      data__data_dir=home,
      data__source='gsm8k',
      data__prompt_template='Q: {prompt}\nA:',
      evaluation__split='test',
    )
  )
  prompts = parts.held_out.first(1)
  shown = parts.tokenizer.decode(prompts.tokens[0][prompts.mask[0]])
  assert shown == 'Q: What do 4 pens at 2 coins cost?\nA:'
  assert np.asarray(prompts.tokens)[0][prompts.mask[0]][0] == 1  # <|begin|>


def test_held_out_prompts_that_are_trained_on_are_counted(tmp_path):
  rows = [{'prompt': text, 'answer': 1} for text in ('a b', 'c d', 'e f')]
  settings = dict(
    data__source='rows',
    data__files=_write(tmp_path / '1.jsonl', rows[:2]),
    evaluation__files=_write(tmp_path / '2.jsonl', rows[1:]),
  )
  built = _experiment(str(tmp_path), **settings)
  trained, held_out = datasets.training(built.data), datasets.held_out(built)
  kept = datasets.compare(held_out, trained, drop=False)
  assert kept == held_out._replace(num_trained_on=1)
  left = datasets.compare(held_out, trained, drop=True)
  assert [example['prompt'] for example in left.examples] == ['e f']
  assert left.num_trained_on == 1
  with pytest.raises(ValueError, match=r'^evaluation\.drop_trained_on: all 2 '):
    datasets.compare(trained, trained, drop=True)
  for drop, count in ((False, 2), (True, 1)):
    config = runs.config(
      **{**_PLAIN, **settings, 'evaluation__drop_trained_on': drop}
    )
    parts = runs.parts(config)
    assert parts.held_out.num_examples == count
    assert parts.held_out.num_trained_on == 1


def test_rows_without_an_answer_are_told(tmp_path):
  rows = [{'prompt': 'a', 'answer': 1}, {'prompt': 'b', 'answer': None}]
  files = _write(tmp_path / '1.jsonl', rows)
  config = runs.config(
    **_PLAIN,
    data__source='rows',
    data__files=files,
    evaluation__files=files,
  )
  parts = runs.parts(config)
  text = header.header(runs.experiment(config), parts, tmp_path, None)
  task, held_out = text.splitlines()[:2]
  assert task.endswith('1 prompts, 1 rows without an answer left out')
  assert held_out.endswith(
    '1 rows without an answer left out, 1 that are trained on, too'
  )


def test_slow_reading_says_of_what(monkeypatch, home):
  built = _experiment(home, data__source='gsm8k', evaluation__split='test')
  with silence.of_command(monkeypatch) as heard:
    monkeypatch.setattr(datasets, '_load', heard.slow(datasets._load))
    datasets.prepare(built)
  assert heard.told == [
    'reading the training data … 11 s',
    'reading the held-out data … 11 s',
  ]


@pytest.fixture
def library(monkeypatch):
  environments.stand_in(monkeypatch)
  yield
  environments.forget()


def test_items_of_a_library_as_training_and_held_out_data(library, tmp_path):
  settings = dict(
    data__source='reasoning_gym',
    data__tasks=('open', ('sums', 3.0, (('level', 2),))),
    data__num_items=64,
    rewards__verifier='reasoning_gym',
    rewards__num_workers=1,
  )
  config = runs.config(
    **{**_PLAIN, 'data__data_dir': str(tmp_path), **settings}
  )
  parts = runs.parts(config)
  known = {example['prompt'] for example in parts.prompts.all_examples()}
  held_out = {example['prompt'] for example in parts.held_out.all_examples()}
  assert held_out
  assert not known & held_out
  # A function of seed and step, in the shares of the tasks.
  batches = [parts.prompts.batch(step) for step in range(40)]
  again = runs.parts(config).prompts.batch(3)
  np.testing.assert_array_equal(again.tokens, batches[3].tokens)
  drawn = [
    example['task']
    for batch in batches
    for example in parts.prompts.examples(batch.example_id)
  ]
  assert 0.6 < drawn.count('sums') / len(drawn) < 0.9
  text = header.header(runs.experiment(config), parts, tmp_path, None)
  assert '1 open + 3 sums_level2, ' in text.splitlines()[0]
  assert 'stores no answer' in text


def test_scorers_of_a_library_need_its_items(home):
  config = runs.config(
    **{
      **_PLAIN,
      'data__data_dir': home,
      'data__source': 'gsm8k',
      'evaluation__split': 'test',
      'rewards__verifier': 'reasoning_gym',
      'rewards__num_workers': 1,
    }
  )
  message = (
    r"^rewards.verifier: 'reasoning_gym' reads the fields 'task', .*; its"
    r' example 0 has .* Set data.source=reasoning_gym'
  )
  with pytest.raises(ValueError, match=message):
    runs.parts(config)
