"""Each reader on files in the form of its publisher, with text of our own."""

import pathlib
import shutil

import pytest

from dppo_jax.data import sources

_FILES = pathlib.Path(__file__).parents[1] / 'testdata' / 'sources'
_FIELDS = {'prompt': 'prompt', 'answer': 'answer', 'level': '', 'source': ''}


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data')
  shutil.copytree(_FILES, folder / 'files')
  return folder


def _load(name, split='train', files='', home='/nowhere', **fields):
  return sources.load_source(
    name, split, files, home, {**_FIELDS, **fields}, 'data.files'
  )


def _answers(loaded):
  return [example['answer'] for example in loaded.examples]


def test_every_source_has_its_file():
  assert {*sources.SOURCES} - {'rows'} == {p.name for p in _FILES.iterdir()}


def test_gsm8k(home):
  assert _answers(_load('gsm8k', 'train', home=home)) == ['1200', '10']
  (row,) = _load('gsm8k', 'test', home=home).examples
  assert row == {
    'example_id': 0,
    'prompt': 'What do 4 pens at 2 coins cost?',
    'answer': '8',
  }


def test_math_in_both_forms(home):
  loaded = _load('math', home=home)
  assert _answers(loaded) == [r'\frac{1}{6}', r'\{0,2,4,6,8\}', '2']
  assert loaded.examples[0] == {
    'example_id': 0,
    'prompt': 'What is half of one third?',
    'answer': r'\frac{1}{6}',
    'level': 'Level 1',
    'source': 'Prealgebra',
  }
  assert _answers(_load('math', 'test', home=home)) == ['4']


def test_math_500(home):
  (row,) = _load('math_500', 'test', home=home).examples
  assert (row['answer'], row['level'], row['source']) == ('4', '1', 'Algebra')


def test_dapo_keeps_each_prompt_once(home):
  loaded = _load('dapo_math_17k', home=home)
  assert _answers(loaded) == ['8', '34']
  assert (loaded.num_duplicates, loaded.num_conflicts) == (3, 1)
  assert [row['example_id'] for row in loaded.examples] == [0, 1]
  assert loaded.examples[0]['prompt'].endswith(
    '\n\nCount the vertices of a cube.'
  )
  assert loaded.examples[0]['source'] == 'math_dapo'


def test_aime(home):
  assert _answers(_load('aime_2024', 'validation', home=home)) == ['25']
  loaded = _load('aime_2025', 'test', home=home)
  assert _answers(loaded) == ['7', '81']
  assert [row['example_id'] for row in loaded.examples] == [0, 1]
  # MathArena's rows, whose answers are numbers.
  assert _answers(_load('aime_2026', 'test', home=home)) == ['125', '55']


def test_rows_of_the_user(tmp_path):
  path = tmp_path / 'mine.jsonl'
  path.write_text(
    '{"q": {"text": "One?"}, "gold": 1.0, "grade": 3, "from": "a"}\n'
    '{"q": {"text": "Two?"}, "gold": "2"}\n'
  )
  fields = dict(prompt='q.text', answer='gold', level='grade', source='from')
  loaded = _load('rows', files=str(path), **fields)
  assert loaded.examples == (
    {
      'example_id': 0,
      'prompt': 'One?',
      'answer': '1',
      'level': '3',
      'source': 'a',
    },
    {'example_id': 1, 'prompt': 'Two?', 'answer': '2'},
  )


@pytest.mark.parametrize(
  ('row', 'match'),
  [
    (
      '{"prompt": "a", "gold": 1, "x": {"y": 2}}',
      r"fields\.answer: .*line 2 has no field 'answer'; its fields are prompt,"
      r' gold, x\.y',
    ),
    ('{"prompt": "a", "answer": null}', r"line 2 has no field 'answer'"),
    ('{"prompt": " ", "answer": 1}', 'line 2 has an empty prompt'),
    ('{"prompt": "a", "answer": [1]}', r'line 2 holds a list'),
    ('{"prompt": "a", "answer": true}', r'line 2 holds a bool'),
    (
      '{"prompt": [{"role": "system", "content": "b"}, {"role": "user"}],'
      ' "answer": 1}',
      r"line 2 is a chat of 2 turns \['system', 'user'\]",
    ),
    ('{"prompt": [{"role": "user"}], "answer": 1}', 'holds a NoneType'),
  ],
)
def test_bad_rows_say_where(tmp_path, row, match):
  path = tmp_path / 'mine.jsonl'
  path.write_text('{"prompt": "fine", "answer": 1}\n' + row + '\n')
  with pytest.raises(ValueError, match=match):
    _load('rows', files=str(path))


def test_an_answer_that_cannot_be_read_says_where(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"problem": "a", "solution": "none"}\n')
  with pytest.raises(ValueError, match=r'a\.jsonl, line 1: no \\boxed'):
    _load('math', files=str(path))


@pytest.mark.parametrize('name', sorted({*sources.SOURCES} - {'gsm8k'}))
def test_missing_files_say_where_they_are_published(tmp_path, name):
  published = sources.SOURCES[name].published
  with pytest.raises(ValueError, match=r'^data\.files: no ') as caught:
    _load(name, home=tmp_path)
  assert published in str(caught.value)
  assert str(tmp_path / 'files' / name) in str(caught.value)
  with pytest.raises(ValueError, match=r"no '/no/such\.jsonl' for the source"):
    _load(name, files='/no/such.jsonl')


def test_gsm8k_is_prepared_where_no_file_is(tmp_path, monkeypatch):
  asked = []

  def prepared(split, data_dir):
    asked.append((split, data_dir))
    return iter([{'question': 'a', 'answer': '#### 1'}, {'question': 'b'}])

  row = sources.dataclasses.replace(sources.SOURCES['gsm8k'], prepared=prepared)
  monkeypatch.setattr(sources, 'SOURCES', {'gsm8k': row})
  with pytest.raises(ValueError, match='gsm8k, split train, row 2 has no'):
    _load('gsm8k', home=tmp_path)
  assert asked == [('train', tmp_path)]


def test_names_are_suggested():
  with pytest.raises(ValueError, match=r"unknown 'mth'; did you mean 'math'"):
    _load('mth')
  with pytest.raises(ValueError, match=r"'math' has no split 'validation'"):
    _load('math', 'validation')


def test_a_million_repeats_are_read_in_batches(tmp_path):
  """A published file repeats its prompts; only the first ones are held."""
  path = tmp_path / 'many.jsonl'
  path.write_text('{"prompt": "a", "answer": 1}\n' * 5000)
  loaded = _load('rows', files=str(path))
  assert len(loaded.examples) == 1
  assert loaded.num_duplicates == 4999
