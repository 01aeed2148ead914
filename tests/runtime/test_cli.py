import sys

from absl import flags
from ml_collections import config_flags
import pytest

from dppo_jax.runtime import cli
from dppo_jax.runtime.hosts.preemption import Preempted
from dppo_jax.runtime.reporting.recorder import NonFiniteError
from dppo_jax.runtime.storage.checkpoints import CheckpointError
from tests.support import runs, silence


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


def test_garbage_is_looked_for_less_often():
  code = """if True:
    import gc
    from dppo_jax.runtime import cli

    gc.unfreeze()  # Of the process that this was forked from.
    def main():
      print(gc.get_freeze_count() > 100_000, gc.get_threshold())
    cli.run(main)
  """
  assert runs.said(code) == 'True (100000, 10, 10)\n'


def test_a_command_without_a_word_of_its_own_is_told(monkeypatch):
  heard = silence.Silence()
  monkeypatch.setattr(cli.activity, 'under_way', heard.under_way)
  assert cli.guard(lambda: heard.pause() or 0, ['dppo ledger']) == 0
  assert heard.told == ['ledger … 11 s']


def test_a_stray_argument_is_refused(capsys):
  assert cli.guard(lambda: 0, ['x', 'seed=3']) == 1
  assert "unexpected argument 'seed=3'" in capsys.readouterr().err


def test_a_command_may_take_arguments():
  assert (
    cli.guard(lambda *words: len(words), ['x', 'a', 'b'], positional=True) == 2
  )


def test_a_word_that_is_no_flag_may_be_a_config(monkeypatch, capsys):
  monkeypatch.setattr(cli.flags, 'FLAGS', {'config': None})
  assert cli.guard(lambda: 0, ['x', 'tiny']) == 1
  assert 'did you mean --config=tiny?' in capsys.readouterr().err


def test_what_is_required():
  assert cli.required('out', 'file', 'a file') == 'file'
  for value, got in ((None, 'missing'), ('', "got ''")):
    with pytest.raises(ValueError, match=rf'^--out: {got}; name a file: --out'):
      cli.required('out', value, 'a file')


@pytest.fixture
def values(monkeypatch):
  """Flags of a command, in place of those of the tests."""
  values = flags.FlagValues()
  flags.DEFINE_string('workdir', None, 'Folder.', flag_values=values)
  flags.DEFINE_bool('dry_run', False, 'Plan.', flag_values=values)
  monkeypatch.setattr(cli.flags, 'FLAGS', values)
  return values


@pytest.fixture
def values_of_a_config(values, monkeypatch):
  config_flags.DEFINE_config_file('config', None, 'Config.', flag_values=values)
  # A file is run as this module, over what the one before it defined.
  monkeypatch.delitem(sys.modules, 'config_config', raising=False)
  return values


def _parse(monkeypatch, *argv):
  # ml_collections looks for overrides there.
  monkeypatch.setattr(sys, 'argv', ['x', *argv])
  return cli.parse_flags(['x', *argv])


def _left(monkeypatch, capsys, *argv):
  """What is said where a command line is refused."""
  with pytest.raises(SystemExit) as caught:
    _parse(monkeypatch, *argv)
  assert caught.value.code == 1
  (line,) = capsys.readouterr().err.splitlines()
  return line.removeprefix('error: ')


@pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')
@pytest.mark.parametrize(
  ('argv', 'message'),
  [
    (['--config=tny'], "--config: no file 'tny'; did you mean 'tiny'?"),
    (['--config.seed=3'], '--config: missing, and --config.KEY=… overrides'),
    (
      ['--config=tiny', '--config.trust-region.delta=.1'],
      '--config.trust-region.delta: no such key; did you mean'
      ' --config.trust_region.delta_low=.1 --config.trust_region.delta_high=.1',
    ),
    (
      ['--config.seed=3', '--config=tiny'],
      '--config.seed: stands before --config=…; put that one first.',
    ),
    (
      ['--config=tiny', '--steps=3'],
      '--steps: no such flag; did you mean --config.num_steps=3?',
    ),
    (
      ['--config=tiny', '--dry-run'],
      '--dry-run: no such flag; did you mean --dry_run?',
    ),
    (
      ['--config=tiny', '--config.num_steps=ten'],
      "--config.num_steps: got 'ten'; a whole number, such as 200.",
    ),
    (
      ['--config=tiny:GRPO'],
      "--config: unknown preset 'GRPO'; did you mean 'g",
    ),
    (['--config=plain.py'], '--config: plain.py has no get_config(); define'),
    (['--config=broken.py'], '--config: broken.py, line 1: invalid syntax'),
    (['--config=bare.py:grpo'], '--config: get_config() of bare.py takes no '),
  ],
)
def test_a_mistake_is_one_line(
  values_of_a_config, monkeypatch, tmp_path, capsys, argv, message
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'plain.py').write_text('x = 3\n')
  (tmp_path / 'broken.py').write_text('def get_config(:\n')
  (tmp_path / 'bare.py').write_text(
    'from dppo_jax.configs import tiny\n'
    'def get_config():\n  return tiny.get_config()\n'
  )
  assert _left(monkeypatch, capsys, *argv).startswith(message)


@pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')
def test_what_people_write_is_read(values_of_a_config, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  words = ('--config.lora.targets=query,value', '--config.num_steps=1e1')
  assert _parse(monkeypatch, '--config=ppo', *words) == ['x']
  config = values_of_a_config['config'].value
  assert config.lora.targets == ('query', 'value')
  assert config.num_steps == 10
  assert config.trust_region.rule == 'ratio_clip'


def test_a_command_without_a_config_has_no_keys(values, monkeypatch, capsys):
  line = _left(monkeypatch, capsys, '--config=tiny')
  assert line.startswith('--config: no such flag of this command, which reads')


@pytest.mark.parametrize('argument', ['--help', '--list=presets', '--helpfull'])
def test_asking_for_help_is_no_error(values_of_a_config, capsys, argument):
  with pytest.raises(SystemExit) as caught:
    cli.parse_flags(['dppo train', '--config=tiny', argument])
  assert caught.value.code == 0
  assert capsys.readouterr().out


@pytest.mark.parametrize(
  ('program', 'name'),
  [
    ('dppo train', 'train'),
    ('experiments/train.py', 'train'),
    ('/a/experiments/b/experiments/figures/__main__.py', 'figures'),
    ('/a/experiments/bench/head.py', 'bench.head'),
  ],
)
def test_a_program_is_known_by_its_path(program, name):
  assert cli._name(program) == name


def test_flags_of_libraries_are_not_offered(values):
  found = cli._own_flags('dppo evaluate')
  assert {'workdir', 'step', 'top_p'} <= set(found)
  assert not [name for name in found if 'chex' in name]
  assert cli._own_flags('my_own.py') == ['dry_run', 'workdir']
