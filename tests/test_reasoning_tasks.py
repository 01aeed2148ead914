import pytest

from dppo_jax import reasoning_tasks
from tests.support import environments


@pytest.fixture(autouse=True)
def library(monkeypatch):
  environments.stand_in(monkeypatch)
  yield
  environments.forget()


def _problems(*entries):
  return list(reasoning_tasks.find_problems(entries))


def test_entries_have_a_weight_and_parameters():
  tasks = reasoning_tasks.parse(
    ['sums', ['open', 2], ('sums', 0.5, {'level': 1, 'signs': ('+', '-')})]
  )
  assert [task.weight for task in tasks] == [1.0, 2.0, 0.5]
  assert tasks[2].parameters == {'level': 1, 'signs': ['+', '-']}
  assert [task.label for task in tasks] == ['sums', 'open', 'sums_level1']
  assert not _problems(*tasks[:2], ('sums', 0.5, (('level', 1),)))


@pytest.mark.parametrize(
  ('entry', 'message'),
  [
    (3, 'data.tasks: got 3; an entry is a name'),
    (('sums',), "data.tasks: got ('sums',); an entry is a name"),
    (('sums', True), "data.tasks: got ('sums', True); an entry"),
    (('sums', 1.0, (('a',),)), 'data.tasks: got '),
    (('sums', 0), "data.tasks: weight 0 of 'sums'; a number above 0"),
    ('sumz', "data.tasks: unknown 'sumz'; did you mean 'sums'?"),
    (
      'game_of_life_halting',
      "data.tasks: 'game_of_life_halting' is refused: its scorer pays any text",
    ),
    (
      ('sums', 1.0, (('max_valu', 3),)),
      "data.tasks: unknown parameter 'max_valu' of 'sums'; did you mean 'max_",
    ),
    (
      ('sums', 1.0, (('size', 3),)),
      "data.tasks: 'size' of 'sums' is set by this package; set data.num_items",
    ),
    (
      ('sums', 1.0, (('max_value', -3),)),
      "data.tasks: 'sums' does not take {'max_value': -3}: max_value must be",
    ),
    (
      ('sums', 1.0, (('max_value', '3'),)),
      "data.tasks: 'max_value' of 'sums' is '3'; its default is 99",
    ),
    (
      ('sums', 1.0, (('share', True),)),
      "data.tasks: 'share' of 'sums' is True; its default is 0.5",
    ),
    (
      ('sums', 1.0, (('style', 'lout'),)),
      "data.tasks: 'style' of 'sums' is 'lout'; did you mean 'loud'?",
    ),
    (('sums', 1.0, (('level', 3),)), "data.tasks: level 3 of 'sums'; 0 to 2."),
    (
      ('open', 1.0, (('level', 0),)),
      "data.tasks: level 0 of 'open'; none: it has no curriculum.",
    ),
  ],
)
def test_what_is_no_entry_is_said(entry, message):
  (problem,) = _problems(entry)
  assert problem.startswith(message)


def test_no_tasks_and_the_same_twice():
  assert _problems()[0].startswith('data.tasks: empty; name tasks')
  assert _problems('sums', ('sums', 2.0)) == [
    "data.tasks: 'sums' occurs twice; add its weights up."
  ]


def test_parameters_in_the_types_of_their_defaults():
  config = reasoning_tasks.configure(
    'sums', {'share': 1, 'signs': ['-'], 'style': 'loud', 'level': 0}
  )
  assert (config.share, config.signs, config.style) == (1.0, ('-',), 'loud')
  assert isinstance(config.share, float)
  assert config.max_value == 9
  # Other parameters replace those of the level.
  replaced = reasoning_tasks.configure('sums', {'level': 2, 'max_value': 12})
  assert replaced.max_value == 12
  assert reasoning_tasks.num_levels('sums') == 3


def _example(item=4):
  entry = reasoning_tasks.open_task('sums', {})[item]
  return {
    'prompt': entry['question'],
    'answer': entry['answer'],
    'task': 'sums',
    'parameters': {},
    'item': item,
  }


def test_the_scorer_sees_its_own_entry_and_a_stripped_answer():
  example = _example()
  answer = example['answer']
  # The stand-in's scorer refuses metadata that went through JSON.
  assert reasoning_tasks.score(f' {answer}\n', example) == 1.0
  assert 0.0 < reasoning_tasks.score(f'{answer} apples', example) < 1.0
  assert reasoning_tasks.score('x', example) == 0.0


def test_an_item_with_another_question_is_not_scored():
  with pytest.raises(
    ValueError, match=r'item 4 of .sums. has another question'
  ):
    reasoning_tasks.score('1', {**_example(), 'prompt': 'elsewhere'})


def test_the_library_is_missing(monkeypatch):
  environments.missing(monkeypatch)
  assert _problems('sums') == [
    "data.source: 'reasoning_gym' needs the library reasoning-gym (import of"
    ' reasoning_gym halted; None in sys.modules):'
    " pip install 'dppo_jax[environments]'"
  ]
