"""How a command begins and ends: flags, messages, exit codes."""

from collections.abc import Callable, Iterator
import functools
import pathlib
import re
import sys
from typing import Any

from absl import app, flags, logging

from dppo_jax.runtime.hosts import cluster, preemption
from dppo_jax.runtime.hosts.preemption import Preempted
from dppo_jax.runtime.reporting import console
from dppo_jax.runtime.reporting.recorder import (
  FailedVerifierError,
  NonFiniteError,
)
from dppo_jax.runtime.storage.checkpoints import CheckpointError
from dppo_jax.suggestions import suggest

# What a user can mend: the message is enough.
_MENDABLE = (
  ValueError,
  OSError,
  CheckpointError,
  FailedVerifierError,
  NonFiniteError,
)
# Those of a clone, or installed with the package.
_CONFIGS = pathlib.Path(__file__).parents[1] / 'configs'
_NO_CONFIGS = ('__init__', 'presets', 'published', 'thresholds')
_INTERRUPTED = 130  # As shells report Ctrl-C.


def run(main: Callable[..., int], *, positional: bool = False) -> None:
  """Parses the flags, calls `main` and leaves with its exit code.

  Args:
    main: returns the exit code.
    positional: whether it takes what is left of the command line.
  """
  console.outlive_readers()
  preemption.own_process()
  logging.set_verbosity(logging.WARNING)  # Orbax tells of every file.
  guarded = functools.partial(guard, main, positional=positional)
  app.run(guarded, flags_parser=parse_flags)


def guard(
  main: Callable[..., int], argv: list[str], *, positional: bool = False
) -> int:
  """Calls `main`; what a user can mend ends in a message, not a traceback.

  Args:
    main: returns the exit code.
    argv: what is left of the command line, the command first.
    positional: whether `main` takes the rest of it, one argument a word.

  Returns:
    The exit code: 1 after an error, 128 + the signal after a signal.
  """
  try:
    if positional:
      return main(*argv[1:])
    if len(argv) > 1:
      raise ValueError(
        f'unexpected argument {argv[1]!r}; a flag is --name=value.'
      )
    return main()
  except Preempted as stopped:
    print(stopped, file=sys.stderr)
    return stopped.exit_code
  except KeyboardInterrupt:
    print('Interrupted.', file=sys.stderr)
    return cluster.fail(_INTERRUPTED, 'Interrupted.')
  except _MENDABLE as error:
    logging.debug('Where it was raised:', exc_info=True)  # --verbosity=1.
    print(f'error: {error}', file=sys.stderr)
    return cluster.fail(1, error)
  except Exception as error:
    return cluster.explain(error)


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the flags; one line says which config or key does not exist.

  Args:
    argv: the command line.

  Returns:
    What is left of it, the command first.

  Raises:
    SystemExit: with code 1, after the line.
  """
  argv = with_config_files(argv)
  for path in _config_files(argv):
    if path.is_file():
      continue
    near = sorted(
      str(each)
      for each in path.parent.glob('[a-z]*.py')
      if each.stem not in _NO_CONFIGS
    )
    if path.suffix != '.py' or not near:
      near = shipped_configs()
    _leave(f'--config: no file {str(path)!r}{suggest(str(path), near)}')
  if _overrides(argv) and not any(_config_files(argv)):
    _leave('--config: missing, and --config.KEY=… overrides a key of it.')
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    _leave(_reason(str(error)))
    raise
  except (AttributeError, KeyError, TypeError) as error:
    # How ml_collections refuses to override a key that is not there.
    _leave(unknown_key(str(error), argv))
    raise


def shipped_configs() -> list[str]:
  """Names of the configs that come with the package."""
  names = (path.stem for path in _CONFIGS.glob('*.py'))
  return sorted(name for name in names if name not in _NO_CONFIGS)


def with_config_files(argv: list[str]) -> list[str]:
  """The command line with files in place of names of shipped configs.

  `--config=tiny:grpo` and `--config=configs/tiny.py:grpo`, in any working
  directory, name configs/tiny.py of the package; a file that exists is kept.

  Args:
    argv: the command line.
  """
  replaced = list(argv)
  for index, argument in enumerate(argv):
    if argument.startswith('--config='):
      flag, value = '--config=', argument.removeprefix('--config=')
    elif index and argv[index - 1] == '--config':
      flag, value = '', argument
    else:
      continue
    path, colon, preset = value.partition(':')
    file = pathlib.Path(path)
    named = path == file.stem or file == pathlib.Path('configs', file.name)
    if named and not file.is_file() and file.stem in shipped_configs():
      path = str(_CONFIGS / f'{file.stem}.py')
    replaced[index] = f'{flag}{path}{colon}{preset}'
  return replaced


def required(name: str, value: Any, meaning: str) -> Any:
  """Returns the value of a flag that has no default.

  Raises:
    ValueError: it was not given.
  """
  if value is None:
    raise ValueError(f'--{name}: missing; name {meaning}.')
  return value


def unknown_key(reason: str, argv: list[str]) -> str:
  """Says which override names no key.

  Args:
    reason: of ml_collections; names the key, not its section.
    argv: the command line.
  """
  overrides = _overrides(argv)
  names = re.findall(r'\w+', reason)
  named = [
    override
    for override in overrides
    if names and names[0] in override.split('.')
  ]
  close = re.search(r'Did you mean "(\w+)"', reason)
  hint = f'did you mean {close[1]!r}? ' if close else ''
  return (
    f'{" ".join(named or overrides) or "--config"}: no such key; {hint}'
    'configs/default.py lists them all.'
  )


def _reason(message: str) -> str:
  """The reason a flag was refused; of a config that raised, its last line."""
  if 'Traceback' not in message:
    return message
  last = message.rstrip().splitlines()[-1].strip()
  return re.sub(r'^\w+Error: ', '', last)


def _overrides(argv: list[str]) -> list[str]:
  return [
    argument.partition('=')[0]
    for argument in argv
    if argument.startswith(('--config.', '--noconfig.'))
  ]


def _config_files(argv: list[str]) -> Iterator[pathlib.Path]:
  for argument, value in zip(argv, [*argv[1:], ''], strict=True):
    if argument.startswith('--config='):
      value = argument.partition('=')[2]
    elif argument != '--config':
      continue
    yield pathlib.Path(value.partition(':')[0])


def _leave(message: str) -> None:
  print(f'error: {message}', file=sys.stderr)
  sys.exit(1)
