import pytest

from dppo_jax.runtime import cli
from dppo_jax.runtime.hosts.preemption import Preempted
from dppo_jax.runtime.reporting.recorder import NonFiniteError
from dppo_jax.runtime.storage.checkpoints import CheckpointError


def _raising(error):
  def main():
    raise error

  return main


@pytest.mark.parametrize(
  'error', [ValueError, OSError, CheckpointError, NonFiniteError]
)
def test_what_can_be_mended_is_one_line(capsys, error):
  assert cli.guard(_raising(error('mend it')), ['x']) == 1
  assert capsys.readouterr().err == 'error: mend it\n'


def test_a_bug_keeps_its_traceback():
  with pytest.raises(ZeroDivisionError):
    cli.guard(_raising(ZeroDivisionError()), ['x'])


def test_signals_have_their_codes(capsys):
  stopped = Preempted(15, 'Stopped after step 3.')
  assert cli.guard(_raising(stopped), ['x']) == 143
  assert cli.guard(_raising(KeyboardInterrupt()), ['x']) == 130
  assert capsys.readouterr().err == 'Stopped after step 3.\nInterrupted.\n'


def test_the_code_of_main_is_kept():
  assert cli.guard(lambda: 7, ['x']) == 7


def test_a_stray_argument_is_refused(capsys):
  assert cli.guard(lambda: 0, ['x', 'seed=3']) == 1
  assert "unexpected argument 'seed=3'" in capsys.readouterr().err


def test_a_command_may_take_arguments():
  assert (
    cli.guard(lambda *words: len(words), ['x', 'a', 'b'], positional=True) == 2
  )


def test_what_is_required():
  assert cli.required('out', 'file', 'a file') == 'file'
  with pytest.raises(ValueError, match=r'^--out: missing; name a file\.$'):
    cli.required('out', None, 'a file')


@pytest.mark.parametrize(
  ('argv', 'message'),
  [
    (
      ['--config=configs/tny.py'],
      "--config: no file 'configs/tny.py'; did you mean 'configs/tiny.py'?",
    ),
    (
      ['--config', 'configs/tny.py:preset'],
      "--config: no file 'configs/tny.py'; did you mean 'configs/tiny.py'?",
    ),
    (['--config=nowhere/x.py'], "--config: no file 'nowhere/x.py'"),
    (
      ['--config=tny:preset'],
      "--config: no file 'tny'; did you mean 'tiny'? Known: cppo",
    ),
    (['--config.seed=3'], '--config: missing, and --config.KEY=… overrides'),
  ],
)
def test_a_config_that_is_not_there(monkeypatch, capsys, argv, message):
  monkeypatch.chdir(cli.pathlib.Path(__file__).parents[2])
  with pytest.raises(SystemExit) as caught:
    cli.parse_flags(['x', *argv])
  assert caught.value.code == 1
  assert capsys.readouterr().err.startswith(f'error: {message}')


@pytest.mark.parametrize(
  'argv',
  [
    ['x', '--config=tiny:grpo'],
    ['x', '--config=configs/tiny.py:grpo'],
    ['x', '--config', 'tiny:grpo'],
  ],
)
def test_a_shipped_config_is_found_from_any_folder(monkeypatch, tmp_path, argv):
  monkeypatch.chdir(tmp_path)
  value = cli.with_config_files(argv)[-1].removeprefix('--config=')
  path, preset = value.split(':')
  assert preset == 'grpo'
  assert 'def get_config' in cli.pathlib.Path(path).read_text()


def test_a_file_goes_before_a_shipped_config(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'tiny').touch()
  for argument in ('--config=tiny', '--config=mine/tiny.py', '--seed=tiny'):
    assert cli.with_config_files(['x', argument]) == ['x', argument]


@pytest.mark.parametrize(
  ('reason', 'argv', 'expected'),
  [
    (
      '\'\\\'ruel\\\'\\nDid you mean "rule" instead of "ruel"?\'',
      ['x', '--config.seed=3', '--config.trust_region.ruel=none'],
      "--config.trust_region.ruel: no such key; did you mean 'rule'? ",
    ),
    ('"\'foo\'"', ['x', '--config.foo=1'], '--config.foo: no such key; conf'),
    (
      "string indices must be integers, not 'str'",
      ['x', '--config.seed.x=1'],
      '--config.seed.x: no such key; configs/default.py lists them all.',
    ),
  ],
)
def test_an_unknown_key_is_named_with_its_section(reason, argv, expected):
  assert cli.unknown_key(reason, argv).startswith(expected)
