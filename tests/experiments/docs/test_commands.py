import pytest

from dppo_jax.experiments.docs import commands

# ml_collections loads a config file by a method that Python will remove.
pytestmark = pytest.mark.filterwarnings(
  'ignore:the load_module:DeprecationWarning'
)


def test_flags_are_those_of_the_entry_point_and_what_it_defines_elsewhere():
  found = {flag.name: flag for flag in commands.flags_of('experiments.train')}
  assert found['config'].kind == 'config'
  assert found['dry_run'].default is False
  assert found['num_processes'].kind == 'integer'  # Of several hosts.
  figures = {
    flag.name for flag in commands.flags_of('experiments.figures.stability')
  }
  assert {'tier', 'out', 'runs', 'parallel'} <= figures


def test_commands_are_found_in_longer_lines():
  text = (
    'cd x && nohup .venv/bin/python -m experiments.train \\\n'
    "  --config=a.py:b --config.x='1 2' > ~/log 2>&1 < /dev/null &\"\n"
    'make test\n'
  )
  (found,) = commands.find(text)
  assert found == ('experiments.train', ['--config=a.py:b', '--config.x=1 2'])


def test_commands_of_an_installed_package_are_found():
  (found,) = commands.find('$ dppo train --config=tiny:grpo --workdir=x')
  assert found == ('experiments.train', ['--config=tiny:grpo', '--workdir=x'])
  assert not commands.find('`dppo doctor` finds it; one `dppo train` per run.')
  assert commands.find('dppo compare runs/a runs/b')


def _parse(*arguments):
  commands.parse(commands.Command('experiments.train', list(arguments)))


def test_a_command_that_can_be_parses():
  _parse(
    '--config=configs/tiny.py:grpo',
    '--config.seed=3',
    '--workdir=x',
    '--dry_run',
  )
  _parse('--config=tiny:grpo')  # As installed: by name.


@pytest.mark.parametrize(
  'argument',
  [
    '--workdri=x',
    '--config.sede=1',
    '--config.seed=one',
    '--num_devices=many',
  ],
)
def test_a_command_that_cannot_be_is_named(argument):
  with pytest.raises(ValueError, match=r'experiments\.train --config='):
    _parse('--config=configs/tiny.py', argument)


@pytest.mark.parametrize(
  'config', ['configs/tiny.py:nothing', 'configs/no.py', 'no']
)
def test_a_config_that_is_not_there_is_named(config):
  with pytest.raises(ValueError, match=r'experiments\.train --config='):
    _parse(f'--config={config}')


def test_an_unknown_entry_point_is_named():
  with pytest.raises(ValueError, match=r'experiments\.nothing'):
    commands.flags_of('experiments.nothing')
