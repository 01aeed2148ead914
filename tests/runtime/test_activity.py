import threading

from absl import logging
import pytest

from dppo_jax.runtime import activity


class _Clock:
  """Seconds that a test sets."""

  now = 100.0

  def __call__(self):
    return self.now


@pytest.fixture
def clock():
  return _Clock()


@pytest.fixture
def told():
  return []


@pytest.fixture
def activities(clock, told):
  return activity.Activities(told.append, clock)


def _look_after(activities, clock, seconds):
  clock.now += seconds
  activities.look()


def test_silence_is_broken_within_ten_seconds(activities, clock, told):
  assert activity.PATIENCE_S + activity._LOOK_S <= 10
  with activities.under_way('reading the training data'):
    _look_after(activities, clock, 9)
    assert told == []
    _look_after(activities, clock, 0.5)
    _look_after(activities, clock, 0.5)
    assert told == ['reading the training data … 10 s']
    _look_after(activities, clock, 9)
    assert told[1:] == ['reading the training data … 19 s']
  _look_after(activities, clock, 60)
  assert len(told) == 2


def test_whatever_was_written_breaks_it_too(activities, clock, told):
  with activities.under_way('train step 3 of 9'):
    clock.now += 9
    activities.hear()
    _look_after(activities, clock, 9)
    assert told == []
    _look_after(activities, clock, 1)
    assert told == ['train step 3 of 9 … 19 s']


def test_short_activities_one_after_another_are_no_silence(
  activities, clock, told
):
  for name in 'abc':
    with activities.under_way(name):
      _look_after(activities, clock, 6)
  assert told == ['b … 6 s']


def test_the_command_is_told_where_nothing_else_is(activities, clock, told):
  with activities.under_way('export'):
    _look_after(activities, clock, 10)
    with activities.under_way('evaluation') as note:
      note('8 of 500 prompts')
      with activities.under_way('verifying 64 completions'):
        _look_after(activities, clock, 11)
      note('16 of 500 prompts')
      _look_after(activities, clock, 10)
  assert told == [
    'export … 10 s',
    'evaluation, 8 of 500 prompts: verifying 64 completions … 11 s',
    'evaluation, 16 of 500 prompts … 21 s',
  ]


def test_an_error_ends_it(activities, clock, told):
  with pytest.raises(ValueError, match='damaged'):
    with activities.under_way('reading'):
      raise ValueError('damaged')
  _look_after(activities, clock, 60)
  assert told == []


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [(0.4, '0 s'), (59.6, '1 min 0 s'), (200, '3 min 20 s'), (7500, '2 h 5 min')],
)
def test_durations(seconds, text):
  assert activity.format_seconds(seconds) == text


def test_only_the_first_process_tells_and_only_unless_quiet(
  monkeypatch, capsys
):
  activity.to_console('first')
  monkeypatch.setattr(activity.coordination, 'is_primary', lambda: False)
  activity.to_console('second')
  monkeypatch.setattr(activity.coordination, 'is_primary', lambda: True)
  monkeypatch.setattr(logging, 'get_verbosity', lambda: logging.ERROR)
  activity.to_console('third')
  assert capsys.readouterr() == ('', 'first\n')


def test_a_console_that_is_gone_is_no_error(monkeypatch):
  def closed(*_, **__):
    raise ValueError('I/O operation on closed file')

  monkeypatch.setattr(activity.tqdm.tqdm, 'write', closed)
  activity.to_console('reading')


def test_one_thread_looks_until_a_child_takes_over(monkeypatch):
  looks, begun = [], []

  class Thread:
    def __init__(self, target, **unused):
      self.start = lambda: begun.append(target)

  class Over:
    def wait(self, seconds):
      del seconds
      return len(looks) == 3

  monkeypatch.setattr(activity, '_started', threading.Event())
  monkeypatch.setattr(activity, '_handed_over', Over())
  monkeypatch.setattr(activity.threading, 'Thread', Thread)
  monkeypatch.setattr(activity._activities, 'look', lambda: looks.append(1))
  activity.watch()
  activity.watch()
  (look,) = begun
  look()
  assert len(looks) == 3
