import os
import subprocess
import sys

import pytest

from dppo_jax import __main__ as main_lib
from dppo_jax.commands import entry_points
from tests.support import runs


@pytest.mark.parametrize('arguments', [[], ['--help'], ['-h']])
def test_commands_are_listed(monkeypatch, capsys, arguments):
  monkeypatch.setattr(sys, 'argv', ['dppo', *arguments])
  main_lib.main()
  out = capsys.readouterr().out
  for name, about in entry_points.commands().items():
    assert f'  {name} ' in out
    assert about in out


def _leave(monkeypatch, *arguments):
  """Exit code of `dppo` with arguments that run nothing."""
  monkeypatch.setattr(sys, 'argv', ['dppo', *arguments])
  with pytest.raises(SystemExit) as caught:
    main_lib.main()
  return caught.value.code


def test_an_unknown_command_is_refused_with_the_nearest(monkeypatch, capsys):
  assert _leave(monkeypatch, 'trian') == 2
  err = capsys.readouterr().err
  assert err.startswith("dppo: unknown command 'trian'; did you mean 'train'?")


def test_a_command_of_a_clone_is_refused_elsewhere(monkeypatch, capsys):
  monkeypatch.setattr(entry_points, 'in_clone', lambda: False)
  assert _leave(monkeypatch, 'tables') == 2
  assert 'run python -m experiments.tables in a clone' in (
    capsys.readouterr().err
  )


@pytest.mark.parametrize('arguments', [['train', '--help'], ['help', 'train']])
def test_help_of_a_command(monkeypatch, capsys, arguments):
  monkeypatch.setattr(sys, 'argv', ['dppo', *arguments])
  main_lib.main()  # And no exit code but 0.
  assert '  --workdir ' in capsys.readouterr().out


@pytest.mark.parametrize(
  'arguments',
  [['--list=presets'], ['list', 'presets'], ['train', '--list=presets']],
)
def test_names_are_listed(monkeypatch, capsys, arguments):
  monkeypatch.setattr(sys, 'argv', ['dppo', *arguments])
  main_lib.main()
  assert '  dppo_binary_kl ' in capsys.readouterr().out


def test_a_list_of_nothing_is_refused(monkeypatch, capsys):
  assert _leave(monkeypatch, '--list=things') == 2
  assert "--list: unknown 'things'" in capsys.readouterr().err


def test_a_command_runs_from_any_folder_with_a_config_by_name(tmp_path):
  """A dry run, from a folder that is not the repository."""
  done = subprocess.run(
    [sys.executable, '-m', 'dppo_jax', 'train', '--config=tiny', '--dry_run'],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(runs.ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert "'sort' -> 'running_sum'" in done.stdout
  assert list(tmp_path.iterdir()) == []
