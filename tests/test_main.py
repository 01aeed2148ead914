import os
import subprocess
import sys

import pytest

from dppo_jax import __main__ as main_lib
from tests.support import runs


def test_every_entry_point_is_a_command():
  known = main_lib.commands()
  assert {'train', 'evaluate', 'figures', 'bench.head'} <= set(known)
  assert known['train'] == 'Trains a policy: config -> experiment -> run.'
  assert 'tables' in known
  assert 'figures.settings' not in known


@pytest.mark.parametrize('arguments', [[], ['--help'], ['-h']])
def test_commands_are_listed(monkeypatch, capsys, arguments):
  monkeypatch.setattr(sys, 'argv', ['dppo', *arguments])
  main_lib.main()
  out = capsys.readouterr().out
  for name, about in main_lib.commands().items():
    assert f'  {name} ' in out
    assert about in out


def test_an_unknown_command_is_refused_with_the_nearest(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['dppo', 'trian'])
  with pytest.raises(SystemExit) as caught:
    main_lib.main()
  assert caught.value.code == 2
  out = capsys.readouterr().out
  assert out.startswith("dppo: unknown command 'trian'; did you mean 'train'?")


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
  assert 'topk_tv' in done.stdout
  assert list(tmp_path.iterdir()) == []
