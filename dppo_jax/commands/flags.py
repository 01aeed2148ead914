"""Flags of an entry point, read from its source."""

import ast
import functools
import pathlib
from typing import Any, NamedTuple

from dppo_jax.commands import entry_points

_METHODS = ('strip', 'removeprefix', 'lower')  # That a name may be made with.


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


def flags_of(name: str) -> list[Flag]:
  """Flags of a command, those of its `define_flags` calls among them.

  Args:
    name: of the command: 'train', 'figures.stability'.

  Raises:
    ValueError: there is no such command.
  """
  file = entry_points.file_of(name)
  if file is None:
    raise ValueError(f'experiments.{name}: there is no such entry point')
  return _flags_in(file)


def _flags_in(file: pathlib.Path) -> list[Flag]:
  found = []
  for node in ast.walk(_tree(file)):
    if not isinstance(node, ast.Call):
      continue
    function = ast.unparse(node.func)
    owner, _, attribute = function.rpartition('.')
    if attribute.startswith('DEFINE_'):
      found.append(_flag(attribute.removeprefix('DEFINE_'), node, file))
    elif owner and (
      attribute == 'define_flags' or function == 'command.run'  # Figures.
    ):
      found += _flags_in(_module(owner, file))
  return found


def _flag(kind: str, node: ast.Call, file: pathlib.Path) -> Flag:
  # absl's order: name, default, (choices of an enum,) help.
  values = [_value(argument, file) for argument in node.args]
  kind = 'config' if kind == 'config_file' else kind
  return Flag(values[0], kind, values[1], values[-1])


def _value(node: ast.expr, file: pathlib.Path) -> Any:
  """Value of a literal, or of a constant of this or an imported module."""
  match node:
    case ast.Constant(value=value):
      return value
    case ast.JoinedStr(values=parts):
      return ''.join(str(_value(part, file)) for part in parts)
    case ast.FormattedValue(value=inner):
      return _value(inner, file)
    case ast.List(elts=items):
      return [_value(item, file) for item in items]
    case ast.Tuple(elts=items):
      return tuple(_value(item, file) for item in items)
    case ast.UnaryOp():
      return ast.literal_eval(node)
    case ast.Name(id=name):
      return _constant(name, file)
    case ast.Attribute(value=ast.Name(id=owner), attr=name):
      return _constant(name, _module(owner, file))
    case ast.Call(func=ast.Attribute(value=owner, attr=name), args=given):
      if name in _METHODS:
        called = getattr(_value(owner, file), name)
        return called(*[_value(argument, file) for argument in given])
  raise ValueError(f'{file}, line {node.lineno}: cannot read a flag')


def _constant(name: str, file: pathlib.Path) -> Any:
  for node in _tree(file).body:
    if isinstance(node, ast.Assign):
      for names in node.targets:
        if ast.unparse(names) == name:
          return _value(node.value, file)
        parts = names.elts if isinstance(names, ast.Tuple) else []
        if name in (each := [*map(ast.unparse, parts)]):
          return _value(node.value, file)[each.index(name)]
    if isinstance(node, ast.ImportFrom) and node.module:
      for alias in node.names:
        if name in (alias.name, alias.asname):
          return _constant(alias.name, _file(node.module))
  raise ValueError(f'{file}: no constant {name!r}')


def _module(name: str, file: pathlib.Path) -> pathlib.Path:
  """Source of a module of this package that a file imports under a name."""
  for node in _tree(file).body:
    if isinstance(node, ast.ImportFrom) and node.module:
      for alias in node.names:
        if (alias.asname or alias.name) == name:
          return _file(f'{node.module}.{alias.name}')
  raise ValueError(f'{file}: imports no module {name!r}')


def _file(module: str) -> pathlib.Path:
  """Source of a module of this package: dppo_jax.runtime.cli, say."""
  parts = module.split('.')[1:]
  return entry_points.PACKAGE.joinpath(*parts).with_suffix('.py')


@functools.cache
def _tree(file: pathlib.Path) -> ast.Module:
  return ast.parse(file.read_text(encoding='utf-8'))
