import pytest

from dppo_jax import reasoning_tasks
from dppo_jax.planning import task_survey
from tests.support import environments


@pytest.fixture(autouse=True)
def library(monkeypatch):
  environments.stand_in(monkeypatch)
  yield
  environments.forget()


def _survey(name, num_items=10):
  (found,) = task_survey.survey([name], num_items, lambda each: None)
  return found


@pytest.mark.parametrize(
  ('name', 'findings', 'unlisted'),
  [
    ('sums', {task_survey.NEWLINE}, []),
    (
      'picky',
      {task_survey.NEWLINE, task_survey.REJECTS},
      [task_survey.REJECTS],
    ),
    ('open', {task_survey.NO_ANSWER}, []),
    (
      'shuffled',
      {task_survey.NEWLINE, task_survey.HASH_SEED},
      [task_survey.HASH_SEED],
    ),
    (
      'stateful',
      {task_survey.NEWLINE, task_survey.CHANGES},
      [task_survey.CHANGES],
    ),
    ('generous', {task_survey.ANY_TEXT}, [task_survey.ANY_TEXT]),
  ],
)
def test_what_is_wrong_with_a_task(name, findings, unlisted):
  found = _survey(name)
  assert set(found.findings) == findings
  assert found.unlisted == unlisted
  line = task_survey.describe(found)
  assert line.startswith('ok' if not unlisted else ('UNFIT', 'PIN'))


def test_shares_of_the_items():
  found = _survey('picky')
  assert found.findings[task_survey.REJECTS] == '2 of 10'
  assert found.longest == len('99 + 99 =')


def test_tasks_of_the_tables_are_known(monkeypatch):
  refused = {'generous': 'it pays any text'}
  monkeypatch.setattr(task_survey, 'REFUSED', refused)
  monkeypatch.setattr(reasoning_tasks, 'REFUSED', refused)
  monkeypatch.setattr(task_survey, 'HASHED', {'shuffled'})
  for name, verdict in (('generous', 'refused'), ('shuffled', 'pinned')):
    found = _survey(name)
    # Tasks that are refused are drawn nevertheless.
    assert found.findings.keys() & {
      task_survey.ANY_TEXT,
      task_survey.HASH_SEED,
    }
    assert found.unlisted == []
    assert task_survey.describe(found).startswith(verdict)


def test_a_task_that_cannot_be_drawn():
  found = _survey('nothing')
  assert found.unlisted == [task_survey.FAILS]
  assert "unknown 'nothing'" in found.findings[task_survey.FAILS]


def test_each_survey_is_told_at_once():
  told = []
  found = task_survey.survey(['sums', 'open'], 2, told.append)
  assert [each.name for each in told] == ['sums', 'open']
  assert told == found
  assert found[0].num_levels == 3
