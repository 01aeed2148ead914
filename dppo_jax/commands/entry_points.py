"""Entry points of experiments/: names, files, first lines.

Read from the sources, so that a list or a help text costs no import of JAX.
"""

import ast
import os
import pathlib

PACKAGE = pathlib.Path(__file__).resolve().parents[1]
# Of a clone, or installed with the package.
FOLDER = (PACKAGE / 'experiments').resolve()
CONFIGS = (PACKAGE / 'configs').resolve()
# They write what only a clone has: docs/, README.md.
OF_A_CLONE = ('docs', 'docs.picture', 'pods', 'tables')


def commands() -> dict[str, str]:
  """First line of the docstring of each command, by name.

  Commands inside folders have dotted names: `bench.head`, `figures.stability`;
  a folder with a `__main__` is a command itself. Those of a clone are left out
  elsewhere.
  """
  found = {}
  for path in sorted([*FOLDER.glob('*.py'), *FOLDER.glob('*/*.py')]):
    text = path.read_text(encoding='utf-8')
    if "if __name__ == '__main__':" not in text:
      continue
    parts = path.relative_to(FOLDER).with_suffix('').parts
    name = '.'.join(part for part in parts if part != '__main__')
    if name not in OF_A_CLONE or in_clone():
      found[name] = first_line(text)
  return found


def first_line(source: str) -> str:
  """First line of the docstring of a module, '' where there is none."""
  words = ast.get_docstring(ast.parse(source)) or ''
  return words.partition('\n')[0]


def file_of(name: str) -> pathlib.Path | None:
  """Source of a command, `train` or `figures.stability`; None of no command."""
  path = FOLDER.joinpath(*name.split('.'))
  for file in (path.with_name(f'{path.name}.py'), path / '__main__.py'):
    if name and file.is_file():
      return file
  return None


def in_clone() -> bool:
  """Whether the package runs from a clone of its repository."""
  return (FOLDER.parent / 'setup.py').is_file()


def shown(path: str | os.PathLike[str]) -> str:
  """A path to print: from the working directory where it is inside, else whole.

  Args:
    path: absolute.
  """
  relative = os.path.relpath(path)
  outside = relative.split(os.sep, 1)[0] == os.pardir
  return os.fspath(path) if outside else relative


def keys_file() -> str:
  """Path, to print, of the file that lists every key of a config."""
  return shown(CONFIGS / 'default.py')
