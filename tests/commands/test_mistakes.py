import pytest

from dppo_jax.commands import entry_points, keys, mistakes

_KEYS = keys.known()
_FLAGS = ('config', 'dry_run', 'extend', 'num_devices', 'workdir')


@pytest.mark.parametrize(
  ('name', 'told'),
  [
    ('trian', "unknown command 'trian'; did you mean 'train'?"),
    ('Train', "unknown command 'Train'; did you mean 'train'?"),
    ('select-problems', "unknown command 'select-problems'; did you mean 'sel"),
    ('--config=tiny', 'a command comes before its flags: dppo train --config='),
    ('xyzzy', "unknown command 'xyzzy'. Known: before_after, bench.head, "),
    ('tables', 'tables writes pages of the repository, which an installed'),
  ],
)
def test_a_command_that_is_not_there(name, told):
  known = entry_points.commands()
  assert mistakes.unknown_command(name, known).startswith(told)


@pytest.mark.parametrize(
  ('name', 'value', 'told'),
  [
    ('steps', '10', 'did you mean --config.num_steps=10?'),
    ('seed', '3', 'did you mean --config.seed=3?'),
    ('lr', '1e-4', 'did you mean --config.optimizer.learning_rate=1e-4?'),
    ('num-steps', '5', 'did you mean --config.num_steps=5?'),
    (
      'trust_region.delta',
      '.1',
      'did you mean --config.trust_region.delta_low=.1'
      ' --config.trust_region.delta_high=.1?',
    ),
    ('dry-run', '', 'did you mean --dry_run?'),
    ('Dry_run', '', 'did you mean --dry_run?'),
    ('workdri', 'x', "did you mean '--workdir'?"),
    ('output_dir', 'runs/a', 'did you mean --workdir=runs/a?'),
    ('preset', 'grpo', '--config=CONFIG:grpo (--list=presets).'),
    ('resume', '', 'the same command resumes in its --workdir.'),
    ('zzzzzzzz', '', 'Known: --config, --dry_run,'),
  ],
)
def test_a_flag_that_is_not_there(name, value, told):
  line = mistakes.unknown_flag(name, value, _FLAGS, _KEYS)
  assert line.startswith(f'--{name}: no such flag')
  assert told in line
  assert '\n' not in line


def test_a_command_without_a_config_says_so():
  line = mistakes.unknown_flag('config', 'tiny', ('step', 'workdir'), {})
  assert line == (
    '--config: no such flag of this command, which reads the config that the'
    ' run recorded in its --workdir. Its flags: --step, --workdir.'
  )
  # And is offered no keys.
  line = mistakes.unknown_flag('seed', '3', ('step', 'workdir'), {})
  assert '--config' not in line


@pytest.mark.parametrize(
  ('word', 'told'),
  [
    ('tiny', 'did you mean --config=tiny?'),
    ('tiny:grpo', 'did you mean --config=tiny:grpo?'),
    ('mine.py', 'did you mean --config=mine.py?'),
    ('num_steps=5', 'did you mean --config.num_steps=5?'),
    ('config.seed=5', 'did you mean --config.seed=5?'),
    ('steps=5', 'did you mean --config.num_steps=5?'),
    ('5', 'a flag is --name=value.'),
  ],
)
def test_a_word_that_is_no_flag(word, told):
  line = mistakes.stray(word, _KEYS)
  assert line == f'unexpected argument {word!r}; {told}'


def test_a_command_without_a_config_is_offered_none():
  assert mistakes.stray('tiny', {}).endswith('a flag is --name=value.')
