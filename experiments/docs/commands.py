"""Command lines: flags of the entry points, and whether a command parses.

Flags are read from the sources, since entry points of one process would define
the same flags twice.
"""

import ast
from collections.abc import Sequence
import functools
import importlib
import importlib.util
import pathlib
import re
import shlex
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from dppo_jax.runtime import cli

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


class Flag(NamedTuple):
  """A flag of an entry point.

  Attributes:
    name: without dashes.
    kind: suffix of DEFINE_…, or 'config'.
    default: its value without the flag.
    meaning: help text.
  """

  name: str
  kind: str
  default: Any
  meaning: str


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


@functools.cache
def flags_of(module: str) -> Sequence[Flag]:
  """Flags of an entry point, including those of its `define_flags` calls."""
  spec = importlib.util.find_spec(module)
  if spec is not None and spec.submodule_search_locations:
    spec = importlib.util.find_spec(f'{module}.__main__')
  if spec is None or spec.origin is None:
    raise ValueError(f'{module}: there is no such entry point')
  tree = ast.parse(pathlib.Path(spec.origin).read_text())
  return _flags_in(tree, _imported(tree))


def _flags_in(tree: ast.AST, names: dict[str, Any]) -> list[Flag]:
  """Flags that a module defines; `names` resolves its expressions."""
  found = []
  for node in ast.walk(tree):
    if not isinstance(node, ast.Call):
      continue
    function = ast.unparse(node.func)
    owner, _, attribute = function.rpartition('.')
    if attribute.startswith('DEFINE_'):
      found.append(_flag(attribute.removeprefix('DEFINE_'), node, names))
    elif owner and (
      attribute == 'define_flags' or function == 'command.run'  # Figures.
    ):
      module = names[owner]
      text = pathlib.Path(module.__file__).read_text()
      found += _flags_in(ast.parse(text), vars(module))
  return found


def _flag(kind: str, node: ast.Call, names: dict[str, Any]) -> Flag:
  # absl's order: name, default, (choices of an enum,) help.
  values = [_value(argument, names) for argument in node.args]
  kind = 'config' if kind == 'config_file' else kind
  return Flag(values[0], kind, values[1], values[-1])


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
  """Value of a literal, or of an imported constant."""
  try:
    return ast.literal_eval(node)
  except ValueError:
    pass
  if isinstance(node, ast.JoinedStr):
    return ''.join(
      str(part.value)
      if isinstance(part, ast.Constant)
      else str(_value(part.value, names))
      for part in node.values
      if isinstance(part, ast.Constant | ast.FormattedValue)
    )
  if isinstance(node, ast.Name):
    return names[node.id]
  if isinstance(node, ast.Attribute):
    return getattr(_value(node.value, names), node.attr)
  if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
    called = getattr(_value(node.func.value, names), node.func.attr)
    return called(*[_value(argument, names) for argument in node.args])
  raise ValueError(f'line {node.lineno}: cannot read {ast.unparse(node)}')


def _imported(tree: ast.Module) -> dict[str, Any]:
  """Names bound by the imports of a module."""
  names: dict[str, Any] = {}
  for node in tree.body:
    if isinstance(node, ast.Import):
      for alias in node.names:
        if alias.asname:
          names[alias.asname] = importlib.import_module(alias.name)
    elif isinstance(node, ast.ImportFrom) and node.module:
      owner = importlib.import_module(node.module)
      for alias in node.names:
        full = f'{node.module}.{alias.name}'
        bound = getattr(owner, alias.name, None)
        if bound is None:
          bound = importlib.import_module(full)
        names[alias.asname or alias.name] = bound
  return names


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
  words = cli.with_config_files(
    [command.module, *(w for w in command.arguments if w != '…')]
  )
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
