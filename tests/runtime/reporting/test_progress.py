import io

import pytest

from dppo_jax.runtime.reporting import progress


class _Terminal(io.StringIO):
  def isatty(self):
    return True


class _Clock:
  def __init__(self):
    self.now = 0.0

  def __call__(self):
    return self.now


def _run(file, num_steps, start_step=0, seconds=2.0, first=30.0):
  clock = _Clock()
  with progress.Progress(
    num_steps, start_step, file=file, clock=clock
  ) as shown:
    for step in range(start_step + 1, num_steps + 1):
      clock.now += first if step == start_step + 1 else seconds
      shown.update(step, {'reward': f'{step / num_steps:.3f}', 'masked': '1 %'})


def test_a_log_gets_a_line_every_tenth():
  file = io.StringIO()
  _run(file, 200)
  lines = file.getvalue().splitlines()
  assert len(lines) == 10
  assert lines[0] == (
    'train: step 20/200 (10%), reward 0.100, masked 1 %, '
    '2.00 s/step, 6 min 0 s left'
  )
  assert lines[-1] == ('train: step 200/200 (100%), reward 1.000, masked 1 %')


def test_the_pace_leaves_the_first_step_out():
  file = io.StringIO()
  _run(file, 20, first=1000.0, seconds=1.0)
  assert '1.00 s/step, 18 s left' in file.getvalue().splitlines()[0]


def test_a_resumed_run_reports_the_rest():
  file = io.StringIO()
  _run(file, 200, start_step=150)
  lines = file.getvalue().splitlines()
  assert [line.split()[2] for line in lines] == [
    '160/200',
    '180/200',
    '200/200',
  ]


@pytest.mark.parametrize('num_steps', [1, 3, 7])
def test_a_short_run_ends_with_its_last_step(num_steps):
  file = io.StringIO()
  _run(file, num_steps)
  lines = file.getvalue().splitlines()
  assert len(lines) == num_steps
  assert f'step {num_steps}/{num_steps}' in lines[-1]


def test_nothing_to_do_is_no_error():
  file = io.StringIO()
  _run(file, 0)
  assert file.getvalue() == ''


def test_a_terminal_gets_a_bar():
  file = _Terminal()
  with progress.Progress(4, file=file) as shown:
    for step in range(1, 5):
      shown.update(step, {'loss': '0.5'})
    shown.note('held-out accuracy 0.9')
  text = file.getvalue()
  assert '4/4' in text
  assert 'held-out accuracy 0.9\n' in text
  assert text.count('\r') >= 2


def test_the_bar_shows_the_facts(monkeypatch):
  file = _Terminal()
  monkeypatch.setenv('COLUMNS', '120')
  with progress.Progress(2, file=file) as shown:
    shown.update(2, {'reward': '0.934', 'masked': '0.40 %'})
  assert 'reward 0.934, masked 0.40 %' in file.getvalue()


def test_the_pace_of_a_bar_leaves_the_first_step_out(monkeypatch):
  file = _Terminal()
  monkeypatch.setenv('COLUMNS', '160')
  clock = _Clock()
  with progress.Progress(30, 10, file=file, clock=clock) as bar:
    for step, clock.now in ((11, 1000.0), (21, 1010.0)):
      bar.update(step, {'reward': '1'})
  shown = file.getvalue()  # It is drawn as it is left.
  assert 'reward 1, 1.00 s/step, 9 s left' in shown
  assert '/s' not in shown.replace('s/step', '')  # No rate of the bar's own.


def test_a_note_in_a_log_is_a_line():
  file = io.StringIO()
  with progress.Progress(10, file=file) as shown:
    shown.note('saved')
  assert file.getvalue() == 'saved\n'
