"""The console command: `dppo NAME …` is `python -m experiments.NAME …`.

dppo train --config=tiny --workdir=DIR

The commands are the entry points of experiments/, which an installed package
holds as `dppo_jax.experiments`. One command with subcommands, rather than one
a name, so that `dppo` alone lists them and nothing else is put on the path.
"""

import ast
import pathlib
import runpy
import sys

from dppo_jax.suggestions import suggest

_FOLDER = pathlib.Path(__file__).parent / 'experiments'


def commands() -> dict[str, str]:
  """First line of the docstring of each command, by name.

  Commands inside folders have dotted names: `bench.head`, `figures.stability`;
  a folder with a `__main__` is a command itself.
  """
  found = {}
  for path in sorted([*_FOLDER.glob('*.py'), *_FOLDER.glob('*/*.py')]):
    text = path.read_text(encoding='utf-8')
    if "if __name__ == '__main__':" not in text:
      continue
    parts = path.relative_to(_FOLDER).with_suffix('').parts
    name = '.'.join(part for part in parts if part != '__main__')
    words = ast.get_docstring(ast.parse(text)) or ''
    found[name] = words.partition('\n')[0]
  return found


def _list() -> str:
  known = commands()
  width = max(map(len, known))
  lines = [f'  {name:{width}}  {about}' for name, about in known.items()]
  return '\n'.join(
    ('dppo COMMAND --flag=value …; dppo COMMAND --help lists flags.', *lines)
  )


def main() -> None:
  """Runs the command that the first argument names.

  Raises:
    SystemExit: with the command's exit code; 2 where there is none of that
      name.
  """
  name = sys.argv[1] if len(sys.argv) > 1 else ''
  if name in ('', '-h', '--help', 'help'):
    print(_list())
    return
  known = commands()
  if name not in known:
    print(f'dppo: unknown command {name!r}{suggest(name, known)}')
    sys.exit(2)
  sys.argv = [f'dppo {name}', *sys.argv[2:]]
  runpy.run_module(
    f'dppo_jax.experiments.{name}', run_name='__main__', alter_sys=False
  )


if __name__ == '__main__':
  main()
