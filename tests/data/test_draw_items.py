import io
import json
import os
import signal
import subprocess
import sys

import pytest

from dppo_jax import reasoning_tasks
from dppo_jax.data import draw_items
from tests.support import environments


@pytest.fixture(autouse=True)
def library(monkeypatch):
  environments.stand_in(monkeypatch)
  yield
  environments.forget()


def _draw(name, num_items, probe=False, reverse=False, **parameters):
  found = []
  settings = {
    'name': name,
    'parameters': parameters,
    'num_items': num_items,
    'limit_s': 30.0,
    'probe': probe,
    'reverse': reverse,
  }
  draw_items.draw(settings, found.append)
  return found


def test_each_question_once_and_until_there_are_no_more():
  found = _draw('sums', 50)
  questions = [each['question'] for each in found]
  assert len(set(questions)) == len(questions) == 50
  assert all(each['score'] == 1.0 for each in found)
  # Indices of repeated questions are passed over.
  few = _draw('sums', 50, max_value=2)
  assert len(few) == 9
  assert [each['item'] for each in few] != list(range(9))


def test_stored_answers_that_their_scorer_rejects_or_that_are_not_there():
  scores = [each['score'] for each in _draw('picky', 6)]
  assert scores == [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]
  (found,) = _draw('open', 1)
  assert found['answer'] is None
  assert 'score' not in found


def test_a_scorer_that_raises_is_named(monkeypatch):
  def broken(self, answer, entry):
    raise LookupError(answer)

  kind = reasoning_tasks.library().DATASETS['sums'][0]
  monkeypatch.setattr(kind, 'score_answer', broken)
  assert _draw('sums', 1)[0]['score'] == 'LookupError'


def test_a_probe_draws_every_index_in_either_order():
  forward = _draw('sums', 20, probe=True, max_value=1)
  backward = _draw('sums', 20, probe=True, reverse=True, max_value=1)
  assert [each['item'] for each in forward] == list(range(20))
  assert backward == forward[::-1]
  assert {each['nonsense'] for each in forward} == {0.0}
  assert all(0.0 < each['newline'] < 1.0 for each in forward)
  (free,) = _draw('generous', 1, probe=True)
  assert free['nonsense'] == 1.0


def _run(**settings):
  """Lines of a child, and its exit code."""
  request = {
    'parameters': {},
    'num_items': 3,
    'limit_s': 30.0,
    'probe': False,
    'reverse': False,
    **settings,
  }
  done = subprocess.run(
    [sys.executable, '-P', '-m', 'dppo_jax.data.draw_items'],
    input=json.dumps(request) + '\n',
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    capture_output=True,
    text=True,
    timeout=60,
    check=False,
  )
  lines = [json.loads(line) for line in io.StringIO(done.stdout)]
  return lines, done.returncode


def test_a_child_says_that_it_is_done_or_what_was_raised():
  lines, code = _run(name='sums')
  assert (len(lines), lines[-1], code) == (4, {'end': True}, 0)
  lines, code = _run(name='sums', parameters={'raise_at': 1})
  assert lines[-1] == {'error': 'RuntimeError: no such item'}
  assert (len(lines), code) == (2, 0)


def test_a_child_ends_itself_where_an_item_hangs():
  lines, code = _run(name='sums', parameters={'hang_at': 0}, limit_s=0.5)
  assert (lines, code) == ([], -signal.SIGALRM)
