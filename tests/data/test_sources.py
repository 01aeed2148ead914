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
    ('{"prompt": null, "answer": 1}', r"line 2 holds null in 'prompt'; mend"),
    (
      '{"prompt": {"text": "a"}, "answer": 1}',
      'line 2 holds a dict there with text; name one by its path',
    ),
    (
      '{"prompt": ["a", "b"], "answer": 1}',
      r'line 2 holds a list of str; .*ro',
    ),
    ('{"prompt": [], "answer": 1}', 'line 2 holds a list of nothing'),
    (
      '{"prompt": [{"from": "human", "value": "a"}], "answer": 1}',
      "line 2 is a chat whose turns have from, value; 'role' and 'content' are",
    ),
    (
      '{"prompt": [{"role": "system", "content": "b"}], "answer": 1}',
      r"chat of 1 turns \['system'\].* Give the turn that role",
    ),
    ('{"prompt": " ", "answer": 1}', 'line 2 has an empty prompt'),
    ('{"prompt": "a", "answer": [1]}', r'line 2 holds a list'),
    ('{"prompt": "a", "answer": true}', r'line 2 holds a bool'),
    (
      '{"prompt": [{"role": "system", "content": "b"}, {"role": "user",'
      ' "content": "a"}], "answer": 1}',
      r"line 2 is a chat of 2 turns \['system', 'user'\].*data\.system_prompt",
    ),
    (
      '{"prompt": [{"role": "user", "content": null}], "answer": 1}',
      'line 2 holds null there',
    ),
    ('{"prompt": "a", "answer": "\\ud83d"}', r'line 2 holds half a character'),
  ],
)
def test_bad_rows_say_where(tmp_path, row, match):
  path = tmp_path / 'mine.jsonl'
  path.write_text('{"prompt": "fine", "answer": 1}\n' + row + '\n')
  with pytest.raises(ValueError, match=match):
    _load('rows', files=str(path))


def test_what_is_no_answer_is_left_out_and_counted(tmp_path):
  path = tmp_path / 'mine.jsonl'
  answers = ['null', 'NaN', '"NaN"', '""', '"  "', '"proof"', '" NotFound"']
  path.write_text(
    ''.join(
      f'{{"prompt": "{i}", "answer": {answer}}}\n'
      for i, answer in enumerate([*answers, '"None of these"', '0'])
    )
  )
  loaded = _load('rows', files=str(path))
  assert _answers(loaded) == ['None of these', '0']
  assert [row['example_id'] for row in loaded.examples] == [7, 8]
  assert loaded.num_unanswered == 7
  path.write_text('{"prompt": "a", "answer": "proof"}\n' * 3)
  with pytest.raises(ValueError, match=r"none of 3 rows has .* in 'answer'"):
    _load('rows', files=str(path))


def test_a_solution_may_say_that_there_is_no_answer(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text(
    '{"problem": "a", "solution": "so \\\\boxed{notfound}"}\n'
    '{"problem": "b", "solution": null}\n'
    '{"problem": "c", "solution": "\\\\boxed{1}"}\n'
  )
  loaded = _load('math', files=str(path))
  assert (_answers(loaded), loaded.num_unanswered) == (['1'], 2)


@pytest.mark.parametrize('name', ['gsm8k', 'math'])
def test_files_without_the_name_of_a_split_are_listed(tmp_path, name):
  folder = tmp_path / 'files' / name
  folder.mkdir(parents=True)
  for file in ('gsm8k_train.jsonl', 'notes.txt'):
    (folder / file).write_text('')
  with pytest.raises(
    ValueError,
    match=r"no file of split 'test' .*there lie gsm8k_train\.jsonl, notes\.txt:"
    r" the name.* must have 'test' as a word of its own, as test\.jsonl",
  ):
    _load(name, 'test', home=tmp_path)


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
