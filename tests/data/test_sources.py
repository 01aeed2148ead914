"""Each reader on files in the form of its publisher, with text of our own."""

import json
import pathlib
import shutil

import pytest

from dppo_jax.data import sources
from dppo_jax.rewards import countdown

_FILES = pathlib.Path(__file__).parents[1] / 'testdata' / 'sources'
_FIELDS = {
  'prompt': 'prompt',
  'answer': 'answer',
  'options': '',
  'level': '',
  'source': '',
  'extra': '*',
}


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
    'type': 'Prealgebra',
    'solution': loaded.examples[0]['solution'],
  }
  assert loaded.examples[0]['solution'].endswith(r'$\boxed{\frac{1}{6}}$.')
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
  loaded = _load('aime_2024', 'validation', home=home)
  assert _answers(loaded) == ['25', '121', '8']
  assert loaded.examples[1]['prompt'] == 'Find 11 times 11.'
  loaded = _load('aime_2025', 'test', home=home)
  assert _answers(loaded) == ['7', '180', '125', '81']
  assert [row['example_id'] for row in loaded.examples] == [0, 1, 2, 3]
  assert loaded.examples[2]['problem_type'] == ['Number Theory']
  assert _answers(_load('aime_2026', 'test', home=home)) == ['36', '7']


def test_countdown_has_words_and_its_numbers(home):
  first, second = _load('countdown', home=home).examples
  assert first == {
    'example_id': 0,
    'prompt': 'Reach 24 with the numbers 4, 6: use each of them exactly once,'
    ' with + - * / and parentheses.',
    'answer': '24',
    'target': 24,
    'nums': [4, 6],
  }
  assert countdown.countdown('4 * 6', first).reward == 1.0
  assert countdown.countdown('5 * 2 * 1', second).reward == 1.0
  assert countdown.countdown('4 * 6', second).reward == 0.0


def test_word_problems_of_two_fields(home, tmp_path):
  (row,) = _load('svamp', 'train', home=home).examples
  assert row['prompt'] == (
    'Ada has 12 pens. She gives away 4 pens. How many pens has she left?'
  )
  assert (row['answer'], row['source']) == ('8', 'Subtraction')
  assert _answers(_load('svamp', 'test', home=home)) == ['5']
  loaded = _load('asdiv', 'test', home=home)
  assert _answers(loaded) == ['7', '5, 8']
  assert loaded.examples[0]['prompt'] == (
    'Three red and four green cups stand there. How many cups stand there?'
  )
  github = tmp_path / 'SVAMP.json'
  github.write_text(
    '[{"ID": "chal-1", "Body": "One.", "Question": "Two?", "Answer": 5.0}]'
  )
  assert _answers(_load('svamp', files=str(github))) == ['5']


def test_choices_are_listed_and_answered_by_letter(home):
  for split, letter in (('train', 'C'), ('validation', 'B'), ('test', 'A')):
    assert _answers(_load('aqua', split, home=home)) == [letter]
  (row,) = _load('aqua', 'train', home=home).examples
  assert row['prompt'].splitlines() == [
    'What is 6 times 7?',
    *('(A) 40', '(B) 41', '(C) 42', '(D) 43', '(E) 44'),
  ]
  queried, agieval = _load('sat', 'test', home=home).examples
  assert agieval['prompt'].splitlines()[-2:] == ['(C) 3', '(D) 4']
  assert (agieval['answer'], queried['answer']) == ('C', 'A')
  assert queried['prompt'].count('(A)') == 1  # It lists them itself.
  (row,) = _load('mmlu_stem', 'test', home=home).examples
  assert row['prompt'].endswith('even?\n(A) 1\n(B) 3\n(C) 4\n(D) 5')
  assert (row['answer'], row['source']) == ('C', 'elementary_mathematics')


def test_gaokao_of_blanks_and_choices(home):
  loaded = _load('gaokao', 'test', home=home)
  assert _answers(loaded) == ['2', '9', 'B']
  assert loaded.examples[2]['prompt'].endswith('\n(C) 9\n(D) 5')


def test_olympiadbench_reads_lists_and_contexts_and_no_images(home):
  loaded = _load('olympiadbench', 'test', home=home)
  assert _answers(loaded) == ['2', r'1, \frac{1}{2}']
  one, two = loaded.examples
  assert one['prompt'] == 'How many moves suffice?'
  assert two['prompt'] == 'Let 2x^2 - 3x + 1 = 0.\n\nFind both roots.'
  assert (two['source'], two['level']) == ('Algebra', 'Competition')
  assert two['is_multiple_answer'] is True
  assert 'image_1' not in one


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
      # What it is made of travels as well.
      'q': {'text': 'One?'},
      'gold': 1.0,
      'grade': 3,
      'from': 'a',
    },
    {
      'example_id': 1,
      'prompt': 'Two?',
      'answer': '2',
      'q': {'text': 'Two?'},
      'gold': '2',
    },
  )


def test_fields_of_the_user_in_a_template_a_list_and_a_choice(tmp_path):
  path = tmp_path / 'mine.jsonl'
  path.write_text(
    '{"Body": "A. ", "Question": "B?", "final": [["x"], ["9", "8"]],'
    ' "choices": {"A": 7, "B": 9}, "meta": {"nums": [1, 2], "n": 3}}\n'
  )
  (row,) = _load(
    'rows',
    files=str(path),
    prompt='{Body} {Question} {meta.nums}',
    answer='final[1][0]',
    options='choices',
    extra='numbers=meta.nums, meta.n',
  ).examples
  assert row == {
    'example_id': 0,
    'prompt': 'A. B? 1, 2\n(A) 7\n(B) 9',
    'answer': 'B',
    'numbers': [1, 2],
    'n': 3,
  }


def test_other_fields_of_a_named_source(home):
  loaded = sources.load_source(
    'math_500',
    'test',
    '',
    home,
    _FIELDS,
    'evaluation.files',
    {'answer': 'unique_id', 'extra': ''},
  )
  assert _answers(loaded) == ['test/algebra/1.json']


def test_what_does_not_travel_is_told(tmp_path):
  path = tmp_path / 'mine.jsonl'
  row = {'prompt': 'a', 'answer': 1, 'small': 1, 'long': 'x' * 5000}
  path.write_text(json.dumps(row) + '\n')
  loaded = _load('rows', files=str(path))
  assert sorted(loaded.examples[0]) == [
    *('answer', 'example_id', 'prompt', 'small'),
  ]
  (note,) = loaded.notes
  assert note.startswith("field 'long' of 1 rows was dropped")
  (named,) = _load('rows', files=str(path), extra='long').examples
  assert named['long'] == 'x' * 5000
  with pytest.raises(ValueError, match=r"extra: .*line 1 has no field 'lnog'"):
    _load('rows', files=str(path), extra='lnog')


def test_a_wrong_choice_says_where(tmp_path):
  path = tmp_path / 'mine.jsonl'
  path.write_text('{"prompt": "a", "answer": 4, "options": ["x", "y"]}\n')
  with pytest.raises(
    ValueError, match=r'fields\.options: .*line 1: the answer 4 of 2 options'
  ):
    _load('rows', files=str(path), options='options')


@pytest.mark.parametrize(
  ('row', 'match'),
  [
    (
      '{"prompt": "a", "gold": 1, "x": {"y": 2}}',
      r"fields\.answer: .*line 2 has no field 'answer'; its fields are prompt,"
      r' gold, x\.y',
    ),
    ('{"prompt": null, "answer": 1}', r"line 2 holds null in 'prompt'; fix"),
    (
      '{"prompt": {"text": "a"}, "answer": 1}',
      'line 2 holds a dict with text there; .* Name one by its path',
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
    ('{"prompt": "a", "answer": []}', r'line 2 holds a list without entries'),
    ('{"prompt": "a", "answer": [[]]}', r'line 2 holds a list'),
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
    match=r"no file of split 'test' .*the folder has gsm8k_train\.jsonl,"
    r" notes\.txt: the name.* must contain 'test' as a separate word, such as"
    r' test\.jsonl',
  ):
    _load(name, 'test', home=tmp_path)


def test_an_answer_that_cannot_be_read_says_where(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"problem": "a", "solution": "none"}\n')
  with pytest.raises(ValueError, match=r'a\.jsonl, line 1: no \\boxed'):
    _load('math', files=str(path))


@pytest.mark.parametrize('name', sorted({*sources.SOURCES} - {'gsm8k'}))
def test_missing_files_say_where_they_are_published(tmp_path, name):
  source = sources.SOURCES[name]
  published = source.published if source.repository else 'Put yours into'
  with pytest.raises(ValueError, match=r'^data\.files: no ') as caught:
    _load(name, home=tmp_path)
  assert published in str(caught.value)
  assert str(tmp_path / 'files' / name) in str(caught.value)
  with pytest.raises(ValueError, match=r"no '/no/such\.jsonl' for the source"):
    _load(name, files='/no/such.jsonl')


def test_files_below_a_hidden_folder_are_found(tmp_path):
  """The default data.data_dir is in ~/.cache."""
  folder = tmp_path / '.cache/data/files/math_500'
  hidden = folder / '.cache/huggingface/a.jsonl'  # As `hf` leaves it.
  for path in (folder / 'test.jsonl', hidden):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"problem": "a", "answer": "1"}\n')
  found = sources.locate(
    'math_500', 'train', '', tmp_path / '.cache/data', {}, 'data.files'
  )
  assert found == [folder / 'test.jsonl']


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
