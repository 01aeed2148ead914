import pathlib

import pytest

from dppo_jax import reasoning_tasks
from dppo_jax.data import reasoning_items
from tests.support import environments


@pytest.fixture(autouse=True)
def library(monkeypatch):
  environments.stand_in(monkeypatch)
  yield
  environments.forget()


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('data')


def _load(data_dir, *entries, split='train', num_items=64, rejected=0.05):
  tasks = reasoning_tasks.parse(entries)
  return reasoning_items.load(tasks, split, num_items, data_dir, rejected)


def _prompts(loaded):
  return {example['prompt'] for example in loaded.examples}


def test_examples_hold_what_the_verifier_reads(data_dir):
  loaded = _load(data_dir, 'sums')
  example = loaded.examples[0]
  assert reasoning_tasks.score(example['answer'], example) == 1.0
  assert example['example_id'] == example['item']
  assert 'component' not in example
  assert loaded.notes == ()


def test_the_text_decides_the_split_whatever_the_parameters(data_dir):
  parts = [_load(data_dir, 'sums', split=s) for s in reasoning_items.SPLITS]
  train, validation, test = map(_prompts, parts)
  assert len(train) + len(validation) + len(test) == 64
  assert not train & (validation | test)
  assert not validation & test
  assert min(map(len, (train, validation, test))) > 0
  # Another level draws other items; what is held out here is there, too.
  easy = ('sums', 1.0, (('max_value', 5),))
  trained = _prompts(_load(data_dir, easy))
  assert not trained & (validation | test)
  assert not trained & _prompts(_load(data_dir, easy, split='test'))


def test_several_tasks_are_components_with_ids_of_their_own(data_dir):
  level = ('sums', 2.0, (('level', 0),))
  loaded = _load(data_dir, ('sums', 1.0, (('max_value', 15),)), level)
  ids = [example['example_id'] for example in loaded.examples]
  assert len(set(ids)) == len(ids)
  assert {e['source'] for e in loaded.examples} == {'sums', 'sums_level0'}
  assert {e['component'] for e in loaded.examples} == {0, 1}
  # Both draw some questions; the first entry has them.
  assert loaded.num_duplicates > 0
  assert len(_prompts(loaded)) == len(loaded.examples)


def test_items_are_drawn_once_and_again_if_their_file_is_damaged(
  data_dir, monkeypatch
):
  drawn = _load(data_dir, 'sums')

  def refuse(*args, **kwargs):
    raise AssertionError('drawn again')

  with monkeypatch.context() as patch:
    patch.setattr(reasoning_items, 'draw', refuse)
    assert _load(data_dir, 'sums') == drawn
  for path in pathlib.Path(data_dir).glob('reasoning_gym/*/sums-*.jsonl'):
    path.write_text('{"item": ')
  assert _load(data_dir, 'sums') == drawn


def test_rejected_answers_are_left_out_or_refused(data_dir):
  message = (
    r'data.max_unverifiable: picky: its own scorer rejects 1[0-9] of 64 stored'
    r' answers, such as .* \(score 0.0\); at most 0.05'
  )
  with pytest.raises(ValueError, match=message):
    _load(data_dir, 'picky')
  loaded = _load(data_dir, 'picky', rejected=0.5)
  assert all(example['item'] % 5 for example in loaded.examples)
  (note,) = loaded.notes
  assert note.endswith('stored answers; these items are left out')


def test_tasks_without_answers_or_with_empty_ones(data_dir):
  loaded = _load(data_dir, 'open')
  assert {example['answer'] for example in loaded.examples} == {''}
  assert loaded.notes == (
    'open stores no answer for 64 items: its scorer judges alone, and nothing'
    ' checks the scorer',
  )
  blank = _load(data_dir, 'blank')
  assert blank.num_unanswered > 0
  assert all(example['answer'] for example in blank.examples)


def test_a_task_with_too_few_items(data_dir):
  few = ('sums', 1.0, (('max_value', 2),))
  loaded = _load(data_dir, few)
  assert loaded.notes == ('sums has 9 distinct items, of 64',)
  # The second entry has nothing that the first has not.
  with pytest.raises(ValueError, match='has no item of its own in split'):
    _load(data_dir, few, ('sums', 1.0, (('max_value', 1),)))


def test_items_that_follow_the_hash_seed_are_the_same_in_every_process():
  (task,) = reasoning_tasks.parse(['shuffled'])
  one, two, other = (
    [found['question'] for found in reasoning_items.draw(task, 3, *seed)]
    for seed in ((), (), ('7',))
  )
  assert one == two != other


@pytest.mark.parametrize(
  ('parameters', 'limit_s', 'message'),
  [
    ({'hang_at': 2}, 0.5, 'drawing item [012] of .sums. with .* took longer'),
    ({'raise_at': 1}, 30.0, 'drawing item 1 .* failed: RuntimeError: no such'),
  ],
)
def test_a_task_that_hangs_or_raises(
  parameters, limit_s, message, monkeypatch, tmp_path
):
  monkeypatch.setattr(reasoning_items, 'ITEM_LIMIT_S', limit_s)
  with pytest.raises(ValueError, match=f'data.tasks: {message}'):
    _load(tmp_path, ('sums', 1.0, parameters))
  assert not list(tmp_path.rglob('*.jsonl'))


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match=r'data.data_dir: cannot write .*file'):
    _load(tmp_path / 'file', 'sums', num_items=8)
