"""Command lines: flags of the entry points, and whether a command parses.

Flags are read from the sources, since entry points of one process would define
the same flags twice.
"""

import pathlib
import re
import shlex
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from dppo_jax.commands import config_files
from dppo_jax.commands import flags as command_flags
from dppo_jax.commands.flags import Flag

ROOT = pathlib.Path(__file__).resolve().parents[2]
# `dppo NAME --flag …` and `python -m experiments.NAME`; bare `dppo NAME` in a
# sentence is a mention.
_COMMAND = re.compile(
  r'(?:(?:python3?|\S*/python) -m (experiments[\w.]*)'
  r'|(?<![\w/-])dppo ([a-z][\w.]*)(?= --| \S*/))(.*)',
  re.DOTALL,
)
# Where a command ends that is a part of a longer line.
_END = re.compile(r'\s(?:&&|\|\||[|<>&;]|2>)|"\s*$|\s#\s')


class Command(NamedTuple):
  """A command line found in a text.

  Attributes:
    module: such as 'experiments.train'.
    arguments: of the command.
  """

  module: str
  arguments: list[str]


def entry_points() -> list[str]:
  """Modules with a command, all figures counted as one."""
  found = []
  for path in sorted((ROOT / 'experiments').rglob('*.py')):
    if not re.search(r'^if __name__ == ', path.read_text(), re.MULTILINE):
      continue
    parts = path.relative_to(ROOT).with_suffix('').parts
    name = '.'.join(parts).removesuffix('.__main__')
    if not name.startswith('experiments.figures.'):
      found.append(name)
  return found


def flags_of(module: str) -> list[Flag]:
  """Flags of an entry point, 'experiments.train' say.

  Raises:
    ValueError: there is no such entry point.
  """
  return command_flags.flags_of(module.removeprefix('experiments.'))


def find(text: str) -> list[Command]:
  """Commands in a script or a code block that start an entry point."""
  joined = text.replace('\\\n', ' ')
  found = []
  for line in joined.splitlines():
    match = _COMMAND.search(line)
    if match:
      rest = _END.split(match[3])[0].replace('[', '').replace(']', '')
      module = match[1] or f'experiments.{match[2]}'
      found.append(Command(module, shlex.split(rest)))
  return found


def parse(command: Command) -> None:
  """Parses a command as its entry point would.

  Raises:
    ValueError: a flag, a config file, a preset, a key or a value is invalid;
      the message repeats the command.
  """
  given = [command.module, *(w for w in command.arguments if w != '…')]
  words = config_files.resolve(given)
  values = flags.FlagValues()
  for flag in flags_of(command.module):
    if flag.kind == 'config':
      config_flags.DEFINE_config_file(
        flag.name,
        flag.default,
        flag.meaning,
        flag_values=values,
        sys_argv=words,
      )
    elif flag.kind == 'multi_enum':
      flags.DEFINE_multi_enum(
        flag.name, flag.default, flag.default, flag.meaning, flag_values=values
      )
    else:
      define = getattr(flags, f'DEFINE_{flag.kind}')
      define(flag.name, flag.default, flag.meaning, flag_values=values)
  try:
    values(words)
    for flag in flags_of(command.module):
      config: Any = values[flag.name].value
      if flag.kind == 'config' and config is not None:
        config.to_dict()  # A file that is not there raises.
  except (flags.Error, AttributeError, TypeError, OSError, KeyError) as error:
    raise ValueError(f'{" ".join(words)}: {error}') from error
