import importlib.util
import sys
import threading
import types

import pytest
from tensorboardX.proto import event_pb2

from dppo_jax.runtime.reporting import writers
from tests.support import runs


class _Run:
  """Of a stand-in for wandb: drops rows below its step, as the real one."""

  def __init__(self):
    self.logged, self.defined, self.finished = [], [], False
    self._step = 0

  def define_metric(self, name, step_metric=None):
    self.defined.append((name, step_metric))

  def log(self, row, step=None):
    if step is None or step >= self._step:
      self._step = max(self._step, step or 0)
      self.logged.append(row)

  def finish(self):
    self.finished = True


@pytest.fixture
def wandb(monkeypatch):
  """Stands in for the package; its runs, with the arguments of `init`."""
  opened = []

  def init(**arguments):
    opened.append((arguments, _Run()))
    return opened[-1][1]

  module = types.ModuleType('wandb')
  module.init, module.Settings = init, dict
  module.__spec__ = importlib.util.spec_from_loader('wandb', None)
  monkeypatch.setitem(sys.modules, 'wandb', module)
  return opened


def _open(workdir, start_step, **settings):
  settings = {f'writers__{key}': value for key, value in settings.items()}
  experiment = runs.experiment(runs.config(**settings))
  return writers.open_writers(experiment, workdir, start_step)


def _write(opened, steps):
  for step in steps:
    for writer in opened:
      writer.write(step, {'loss/total': 0.5 * step})
  for writer in opened:
    writer.close()


def _tensorboard_scalars(folder):
  """Reads event files: length u64, crc u32, bytes, crc u32, again."""
  scalars = []
  for path in folder.iterdir():
    content = path.read_bytes()
    while content:
      size = int.from_bytes(content[:8], 'little')
      event = event_pb2.Event.FromString(content[12 : 12 + size])
      content = content[16 + size :]
      for value in event.summary.value:
        scalars.append((value.tag, event.step, value.simple_value))
  return sorted(scalars)


def test_none_is_opened_unless_asked_for(tmp_path):
  assert _open(tmp_path, None) == []
  assert not list(tmp_path.iterdir())


def test_tensorboard_gets_the_numbers(tmp_path):
  _write(_open(tmp_path, None, tensorboard=True), [1, 2])
  assert _tensorboard_scalars(tmp_path / 'tensorboard') == [
    ('loss/total', 1, 0.5),
    ('loss/total', 2, 1.0),
  ]


def test_wandb_draws_everything_over_the_train_step(tmp_path, wandb):
  _write(_open(tmp_path / 'a', None, wandb=True, wandb_project='p'), [1, 2])
  ((arguments, run),) = wandb
  assert arguments['project'] == 'p'
  assert arguments['name'] == 'a'
  assert arguments['dir'] == str(tmp_path / 'a')
  assert arguments['config']['writers']['wandb'] is True
  assert run.defined == [('step', None), ('*', 'step')]
  assert run.logged == [
    {'step': 1, 'loss/total': 0.5},
    {'step': 2, 'loss/total': 1.0},
  ]
  assert run.finished


def test_a_resume_goes_on_with_the_same_run_and_drops_no_step(tmp_path, wandb):
  _write(_open(tmp_path, None, wandb=True), [1, 2, 3])
  _write(_open(tmp_path, 1, wandb=True), [2, 3])
  _write(_open(tmp_path, None, wandb=True), [1])
  ids = [arguments['id'] for arguments, _ in wandb]
  assert ids[0] == ids[1] != ids[2]
  assert all(arguments['resume'] == 'allow' for arguments, _ in wandb)
  assert [row['step'] for row in wandb[1][1].logged] == [2, 3]


def test_an_id_that_is_none_is_not_used(tmp_path, wandb):
  path = tmp_path / 'wandb' / 'run_id'
  path.parent.mkdir()
  path.write_text('../../elsewhere')
  _write(_open(tmp_path, 3, wandb=True), [])
  assert wandb[0][0]['id'] == path.read_text().strip()
  assert wandb[0][0]['id'].isalnum()


class _Failing:
  def __init__(self, where):
    self._where = where
    self.fail('open')

  def fail(self, where):
    if where == self._where:
      raise OSError(f'cannot {where}\nwith details')

  def write(self, step, row):
    self.fail('write')

  def close(self):
    self.fail('close')


@pytest.mark.parametrize('where', ['open', 'write', 'close'])
def test_one_that_fails_is_told_once_and_ends_nothing(where, caplog):
  writer = writers.InBackground('wandb', lambda: _Failing(where))
  for step in range(5):
    writer.write(step, {})
  writer.close()
  writer.close()
  (record,) = caplog.records
  assert record.getMessage() == (
    f'writers.wandb: OSError: cannot {where}. The run goes on; metrics.jsonl'
    ' has all metrics.'
  )


def test_one_that_hangs_holds_nothing_up(monkeypatch, caplog):
  monkeypatch.setattr(writers, '_CLOSE_S', 0.0)
  monkeypatch.setattr(writers, '_MOST_WAITING', 2)
  release = threading.Event()
  writer = writers.InBackground('wandb', release.wait)
  for step in range(5):
    writer.write(step, {})
  assert 'it is 2 rows behind' in caplog.text
  writer.close()
  assert len(caplog.records) == 1
  release.set()


def test_an_end_that_hangs_is_left_to_itself(monkeypatch, caplog):
  monkeypatch.setattr(writers, '_CLOSE_S', 0.01)
  release = threading.Event()
  writer = writers.InBackground('wandb', release.wait)
  writer.close()
  assert 'it was not done 0.01 s after the run' in caplog.text
  release.set()


@pytest.mark.parametrize(
  ('key', 'package'), [('tensorboard', 'tensorboardX'), ('wandb', 'wandb')]
)
def test_a_missing_package_comes_with_the_command(monkeypatch, key, package):
  asked = []

  def find(name):
    asked.append(name)

  monkeypatch.setattr(importlib.util, 'find_spec', find)
  config = runs.experiment(runs.config(**{f'writers__{key}': True})).writers
  with pytest.raises(ValueError, match='not installed') as caught:
    writers.check_installed(config)
  assert asked == [package]
  assert f"pip install 'dppo_jax[{key}]'" in str(caught.value)
  assert '\n' not in str(caught.value)
  writers.check_installed(runs.experiment().writers)
