"""How a command begins and ends: flags, messages, exit codes."""

import atexit
from collections.abc import Callable, Mapping
import functools
import gc
import pathlib
import re
import sys
from typing import Any, NoReturn

from absl import app, flags, logging

from dppo_jax.commands import (
  config_files,
  entry_points,
  garbage,
  help_text,
  keys,
  mistakes,
)
from dppo_jax.commands import flags as command_flags
from dppo_jax.runtime import activity
from dppo_jax.runtime.hosts import cluster, preemption
from dppo_jax.runtime.hosts.preemption import Preempted
from dppo_jax.runtime.programs import compiler_flags
from dppo_jax.runtime.reporting import compiling, console, library_logs
from dppo_jax.runtime.reporting.recorder import (
  FailedVerifierError,
  NonFiniteError,
)
from dppo_jax.runtime.rollouts.integrity import SamplerError
from dppo_jax.runtime.storage.checkpoints import CheckpointError

# What a user can mend: the message is enough.
_MENDABLE = (
  ValueError,
  OSError,
  CheckpointError,
  FailedVerifierError,
  NonFiniteError,
  SamplerError,
)
_INTERRUPTED = 130  # As shells report Ctrl-C.


def run(main: Callable[..., int], *, positional: bool = False) -> None:
  """Parses the flags, calls `main` and leaves with its exit code.

  Args:
    main: returns the exit code.
    positional: whether it takes what is left of the command line.
  """
  console.outlive_readers()
  preemption.own_process()
  library_logs.quieten()
  compiler_flags.prefer_fast_compiling()
  compiling.watch()
  activity.watch()
  gc.freeze()  # What was imported is no garbage.
  atexit.register(gc.freeze)  # Nor is it worth a look what a process leaves.
  garbage.collect_less()
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
    with activity.under_way(_name(argv[0])):
      if positional:
        return main(*argv[1:])
      if len(argv) > 1:
        known = keys.known() if 'config' in flags.FLAGS else {}
        raise ValueError(mistakes.stray(argv[1], known))
      return main()
  except Preempted as stopped:
    print(stopped, file=sys.stderr)
    return stopped.exit_code
  except KeyboardInterrupt:
    print('Interrupted.', file=sys.stderr)
    return cluster.fail(_INTERRUPTED, 'Interrupted.')
  except _MENDABLE as error:
    cluster.blame_peer(error)
    logging.debug('Where it was raised:', exc_info=True)  # --verbosity=1.
    print(f'error: {error}', file=sys.stderr)
    return cluster.fail(1, error)
  except Exception as error:
    return cluster.explain(error)


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the flags; one line says which config, key or flag does not exist.

  Args:
    argv: the command line.

  Returns:
    What is left of it, the command first.

  Raises:
    SystemExit: with code 1, after the line; with 0 after --help and --list.
  """
  _answer(argv)
  argv = config_files.resolve(argv)
  with_config = 'config' in flags.FLAGS
  known = keys.known() if with_config else {}
  problem = config_files.problem(argv)
  if with_config:
    argv = [_readable(word, known) for word in argv]
    problem = problem or _override_problem(argv, known)
  if problem:
    _leave(problem)
  try:
    left = flags.FLAGS(argv)
    config: Any = flags.FLAGS['config'].value if with_config else None
    if config is not None:
      _ = config.to_dict  # Without overrides it is read once it is used.
    return left
  except flags.UnrecognizedFlagError as error:
    # absl repeats the whole argument as its value.
    value = str(error.flagvalue).partition('=')[2]
    own = _own_flags(argv[0])
    _leave(mistakes.unknown_flag(error.flagname, value, own, known))
  except flags.Error as error:
    _leave(_reason(str(error), argv, known))
  except Exception as error:
    told = config_files.explain(error, argv)
    if told:
      _leave(told)
    raise


def _answer(argv: list[str]) -> None:
  """Answers --help and --list, as `dppo` does, and leaves."""
  if set(argv[1:]) & {'--helpfull', '--helpxml'}:
    print(flags.FLAGS.get_help())
    sys.exit(0)
  try:
    told = help_text.answer(_name(argv[0]), argv[1:])
  except ValueError as error:
    _leave(str(error))
  if told is not None:
    print(told)
    sys.exit(0)


def _name(program: str) -> str:
  """Name of the command: of 'dppo train', or of a path below experiments/."""
  if program.startswith('dppo '):
    return program.removeprefix('dppo ')
  path = pathlib.Path(program).resolve()
  below = [*path.with_suffix('').parts]
  if 'experiments' in below:
    below = below[len(below) - below[::-1].index('experiments') :]
  return '.'.join(part for part in below if part != '__main__')


def _readable(argument: str, known: Mapping[str, Any]) -> str:
  name, equals, value = argument.partition('=')
  path = name.removeprefix('--config.')
  if not equals or path == name:
    return argument
  return f'{name}={keys.readable(path, value, known)}'


def _override_problem(argv: list[str], known: Mapping[str, Any]) -> str:
  """Says which override names no key, or has no config to override."""
  begun = flags.FLAGS['config'].value is not None
  for argument in argv:
    if argument == '--config' or argument.startswith('--config='):
      begun = True
    if not argument.startswith(('--config.', '--noconfig.')):
      continue
    name, _, value = argument.partition('=')
    problem = keys.problem(
      name.partition('.')[2], value, known, entry_points.keys_file()
    )
    if problem:
      return problem
    if not begun and any(config_files.files(argv)):
      return f'{name}: stands before --config=…; put that one first.'
    if not begun:
      return '--config: missing, and --config.KEY=… overrides a key of it.'
  return ''


def _own_flags(program: str) -> list[str]:
  """Flags of this command, without those of the libraries that it imports."""
  try:
    found = {flag.name for flag in command_flags.flags_of(_name(program))}
  except ValueError:  # It is none of experiments/.
    found = set(flags.FLAGS)
  return sorted(name for name in found if '.' not in name)


def required(name: str, value: Any, meaning: str) -> Any:
  """Returns the value of a flag that has no default.

  Raises:
    ValueError: it was not given, or is empty.
  """
  if value is None or value == '':
    got = 'missing' if value is None else "got ''"
    raise ValueError(f'--{name}: {got}; name {meaning}: --{name}=….')
  return value


def _reason(message: str, argv: list[str], known: Mapping[str, Any]) -> str:
  """The reason a flag was refused; of a config that raised, its last line."""
  if 'Traceback' not in message:
    refused = re.match(r'flag --config\.([^=]+)=(.*?): ', message)
    return keys.refused(refused[1], refused[2], known) if refused else message
  last = message.rstrip().splitlines()[-1].strip()
  reason = re.sub(r'^\w+Error: ', '', last)
  return config_files.explain(ValueError(reason), argv) or reason


def _leave(message: str) -> NoReturn:
  print(f'error: {message}', file=sys.stderr)
  sys.exit(1)
