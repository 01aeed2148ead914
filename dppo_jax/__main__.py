"""The console command: `dppo NAME …` is `python -m experiments.NAME …`.

dppo train --config=tiny --workdir=DIR

The commands are the entry points of experiments/, which an installed package
holds as `dppo_jax.experiments`. One command with subcommands, rather than one
a name, so that `dppo` alone lists them and nothing else is put on the path.
"""

import os
import runpy
import sys

from dppo_jax.commands import entry_points, help_text, mistakes

_NO_COMMAND = 2


def main() -> None:
  """Runs the command that the first argument names.

  Raises:
    SystemExit: with the command's exit code; 2 where there is none of that
      name.
  """
  name, *arguments = sys.argv[1:] or ['']
  if name in ('help', '-h', '--help') and arguments:
    name, arguments = arguments[0], ['--help']
  if name in ('', '-h', '--help', 'help'):
    _tell(_list())
    return
  if name in ('list', '--list') or name.startswith('--list='):
    kinds = [name.partition('=')[2], *arguments][-1]
    name, arguments = 'list', [f'--list={kinds}']
  elif entry_points.file_of(name) is None or name not in _known():
    print(f'dppo: {mistakes.unknown_command(name, _known())}', file=sys.stderr)
    sys.exit(_NO_COMMAND)
  try:
    told = help_text.answer(name, arguments)
  except ValueError as error:
    print(f'dppo: {error}', file=sys.stderr)
    sys.exit(_NO_COMMAND)
  if told is not None:
    _tell(told)
    return
  sys.argv = [f'dppo {name}', *arguments]
  runpy.run_module(
    f'dppo_jax.experiments.{name}', run_name='__main__', alter_sys=False
  )


def _tell(text: str) -> None:
  try:
    print(text, flush=True)
  except BrokenPipeError:  # `dppo | head`: what was read was enough.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _known() -> dict[str, str]:
  return entry_points.commands()


def _list() -> str:
  known = _known()
  width = max(map(len, known))
  lines = [f'  {name:{width}}  {about}' for name, about in known.items()]
  return '\n'.join(
    (
      'dppo COMMAND --flag=value …; dppo COMMAND --help lists flags;',
      'dppo --list names configs, presets, figures and verifiers.',
      *lines,
    )
  )


if __name__ == '__main__':
  main()
