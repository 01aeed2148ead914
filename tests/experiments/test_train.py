"""Whole trainings in processes of their own, ended in every way."""

import pathlib
import shutil
import signal
from types import SimpleNamespace

import pytest

from dppo_jax.experiments import train
from dppo_jax.runtime import cli
from dppo_jax.runtime.hosts import cluster
from dppo_jax.runtime.storage import workdir
from tests.support import runs

# Real processes and signals: a rare race is shown as a rerun.
pytestmark = pytest.mark.flaky(reruns=1)

# Long enough to be met in the middle; a step takes some hundredths of a second.
_LONG = (
  '--config.num_steps=40',
  '--config.checkpoints.every_n_steps=5',
  '--config.sft.num_steps=80',
  '--config.evaluation.every_n_steps=20',
  '--config.writers.samples_every_n_steps=5',
  '--config.writers.tensorboard=True',
)
_LONG_CONFIG = runs.config(num_steps=40)


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
  """A run that nothing stopped; importing TensorFlow would leave a mark."""
  folder = tmp_path_factory.mktemp('unbroken')
  fake = folder / 'fake'
  fake.mkdir()
  (fake / 'tensorflow.py').write_text(
    f'open({str(folder / "imported")!r}, "w").close()\n'
    'raise ImportError("no tensorflow here")\n'
  )
  process = runs.train(folder / 'run', *_LONG, fresh=True, PYTHONPATH=str(fake))
  code, out, err = runs.end(process)
  assert code == 0, err
  return SimpleNamespace(folder=folder / 'run', out=out, err=err)


def _end_at(folder, step, number):
  """Starts the run again and sends it a signal once it has reached a step."""
  process = runs.train(folder, *_LONG)
  runs.wait(lambda: runs.last_step(folder) >= step, process)
  process.send_signal(number)
  return runs.end(process)


@pytest.mark.slow
def test_a_life_of_interruptions_ends_as_the_unbroken_one(tmp_path, unbroken):
  folder = tmp_path / 'run'
  checkpoints = folder / workdir.CHECKPOINTS

  process = runs.train(folder, *_LONG)
  for line in process.stderr:
    if line.startswith('warm start: step'):
      break
  process.kill()
  assert runs.end(process)[0] == -signal.SIGKILL
  assert not any(checkpoints.glob('[0-9]*'))

  code, _, _ = _end_at(folder, 8, signal.SIGKILL)
  assert code == -signal.SIGKILL
  assert runs.last_step(folder) < 40
  assert any(checkpoints.glob('[0-9]*'))

  code, _, err = _end_at(folder, 15, signal.SIGTERM)
  assert code == 143
  assert 'Resuming from step' in err
  step = int(err.rpartition('Stopped after step ')[2].split()[0])
  assert 15 <= step < 40
  assert f'step {step} of 40; the state is saved. Run the same command' in err
  assert (checkpoints / str(step)).is_dir()

  code, out, err = runs.end(runs.train(folder, *_LONG))
  assert code == 0
  assert f'Resuming from step {step} of 40.' in err
  assert 'held_out_after' in out
  runs.assert_same(folder, unbroken.folder, _LONG_CONFIG)


def test_the_start_says_what_is_about_to_run(unbroken):
  head = unbroken.err.partition('warm start')[0]
  for fact in (
    'running_sum, 16,384 prompts',
    'parameters, 2 layers',
    '1 × cpu, mesh data 1 · fsdp 1 · expert 1 · tensor 1',
    'divergence, topk_tv from the rollout policy · delta_low 0.2',
    '8 prompts × 4 completions, 2 updates of 16; 40 steps',
    str(unbroken.folder),
  ):
    assert fact in head
  assert 'Resuming' not in head


def test_the_end_says_how_to_go_on(unbroken):
  assert f' evaluate --workdir={unbroken.folder}' in unbroken.out
  assert '--config.num_steps=80' in unbroken.out.rpartition('Extend:')[2]
  for name in ('summary.json', 'summary.png', 'samples.jsonl', 'config.json'):
    assert (unbroken.folder / name).stat().st_size
  assert next((unbroken.folder / 'tensorboard').iterdir()).stat().st_size


def test_tensorflow_is_never_asked_for(unbroken):
  assert (unbroken.folder.parent / 'fake').is_dir()
  assert not (unbroken.folder.parent / 'imported').exists()


def _command(monkeypatch, settings, folder=None, dry_run=False):
  """Exit code of the command, in this process."""
  for name, value in (
    ('_CONFIG', settings),
    ('_WORKDIR', folder and str(folder)),
    ('_DRY_RUN', dry_run),
    ('_NUM_DEVICES', 0),
    ('_EXTEND', False),
    ('_JSON', ''),
  ):
    monkeypatch.setattr(train, name, SimpleNamespace(value=value))
  launch = cluster.make_launch(None, 1, 0, 60, {})
  monkeypatch.setattr(train, '_LAUNCH', lambda: launch)
  monkeypatch.setattr(train.jax, 'device_count', lambda: 1)
  with runs.quick_compilation():
    return cli.guard(train.main, ['train'])


def _contents(folder):
  return {
    path.relative_to(folder): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file() and path.name != 'summary.png'
  }


def test_a_finished_run_stays_as_it_is(monkeypatch, capsys, tmp_path, finished):
  folder = shutil.copytree(finished, tmp_path / 'run')
  before = _contents(folder)
  assert _command(monkeypatch, runs.config(), folder) == 0
  said = capsys.readouterr()
  assert 'Finished already: step 6 is the last.' in said.err
  assert 'held_out_after' in said.out
  after = _contents(folder)
  summary = pathlib.Path('summary.json')
  # The command adds how long the process took, to a summary without it.
  assert before.pop(summary) != after.pop(summary)
  assert after == before
  settled = _contents(folder)
  assert _command(monkeypatch, runs.config(), folder) == 0
  assert _contents(folder) == settled


def test_another_config_is_refused(monkeypatch, capsys, tmp_path, finished):
  folder = shutil.copytree(finished, tmp_path / 'run')
  before = _contents(folder)
  settings = runs.config(
    trust_region__divergence='binary_kl', optimizer__learning_rate=1e-3
  )
  assert _command(monkeypatch, settings, folder) == 1
  said = capsys.readouterr().err
  assert "  trust_region.divergence: 'topk_tv' -> 'binary_kl'\n" in said
  assert '  optimizer.learning_rate: 0.0005 -> 0.001\n' in said
  assert 'Resume it with its own config, or choose another --workdir.' in said
  assert _contents(folder) == before


def test_free_keys_may_change(monkeypatch, capsys, tmp_path, finished):
  folder = shutil.copytree(finished, tmp_path / 'run')
  settings = runs.config(writers__num_samples=1, checkpoints__keep=1)
  assert _command(monkeypatch, settings, folder) == 0
  capsys.readouterr()


def test_one_process_a_folder(monkeypatch, capsys, tmp_path):
  with workdir.locked(tmp_path):
    assert _command(monkeypatch, runs.config(), tmp_path) == 1
  assert 'another process is training in' in capsys.readouterr().err


def test_the_command_asks_for_what_it_needs(monkeypatch, capsys):
  assert _command(monkeypatch, None) == 1
  assert '--config: missing; name an experiment' in capsys.readouterr().err
  assert _command(monkeypatch, runs.config()) == 1
  assert '--workdir: missing; name a folder' in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(monkeypatch, capsys, tmp_path):
  (tmp_path / 'file').touch()
  folder = tmp_path / 'file' / 'run'
  assert _command(monkeypatch, runs.config(), folder) == 1
  assert f'--workdir: {folder} is not writable' in capsys.readouterr().err


def test_a_dry_run_starts_nothing(monkeypatch, capsys, tmp_path):
  folder = tmp_path / 'run'
  assert _command(monkeypatch, runs.config(), folder, dry_run=True) == 0
  said = capsys.readouterr().out
  for fact in ("'sort' -> 'running_sum'", 'parameters         6,512', 'KiB'):
    assert fact in said
  assert not folder.exists()


def test_a_misspelled_key_gets_a_suggestion(tmp_path):
  override = '--config.trust_region.divergance=binary_kl'
  code, _, err = runs.end(runs.train(tmp_path / 'run', override))
  assert code == 1
  assert err.splitlines()[-1] == (
    'error: --config.trust_region.divergance: no such key; did you mean'
    ' --config.trust_region.divergence=binary_kl? configs/default.py lists them'
    ' all.'
  )
  assert not (tmp_path / 'run').exists()


def test_an_unknown_preset_gets_a_suggestion(tmp_path):
  # A second --config wins over the one that `runs.train` gives.
  process = runs.train(
    tmp_path / 'run', '--config=configs/tiny.py:dppo_topk_vt'
  )
  code, _, err = runs.end(process)
  assert code == 1
  (line,) = err.splitlines()
  assert line.startswith(
    "error: --config: unknown preset 'dppo_topk_vt'; did you mean"
    " 'dppo_topk_tv'? Known: c_dppo, "
  )
