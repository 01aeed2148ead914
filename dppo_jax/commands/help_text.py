"""Text of --help, and who answers it before a command is imported."""

import ast
from collections.abc import Sequence
import re
import textwrap

from dppo_jax.commands import entry_points, flags, listing
from dppo_jax.suggestions import suggest

_HELP = ('-h', '--h', '-help', '--help', '-?', '--helpshort')
_WIDTH = 79
# Lists that the help of a command ends with; elsewhere those of a config.
_LISTS = {
  'train': ('configs', 'presets', 'verifiers'),
  'figures': ('figures',),
}


def answer(name: str, arguments: Sequence[str]) -> str | None:
  """What --help or --list prints; None where neither is asked for.

  Args:
    name: of the command.
    arguments: after it.

  Raises:
    ValueError: --list names no kind.
  """
  for index, argument in enumerate(arguments):
    if argument == '--':
      return None
    if argument in _HELP:
      return describe(name)
    if argument == '--list':
      following = arguments[index + 1 : index + 2]
      return listing.describe(
        following[0] if following and following[0][:1] != '-' else ''
      )
    if argument.startswith('--list='):
      return listing.describe(argument.partition('=')[2])
  return None


def of_module(command_line: Sequence[str]) -> str | None:
  """Likewise, of `python -m experiments.NAME …`; None of any other process.

  Args:
    command_line: as in `sys.orig_argv`.
  """
  for index, word in enumerate(command_line[:-1]):
    if word == '-m':
      module, *arguments = command_line[index + 1 :]
      name = module.removeprefix('dppo_jax.').removeprefix('experiments.')
      if name in (module, 'worker') or entry_points.file_of(name) is None:
        return None
      return answer(name, arguments)
  return None


def describe(name: str) -> str:
  """Help of a command: what it does, its flags, names it may be given.

  Raises:
    ValueError: there is no such command.
  """
  file = entry_points.file_of(name)
  if file is None:
    known = entry_points.commands()
    raise ValueError(f'unknown command {name!r}{suggest(name, known)}')
  about = ast.get_docstring(ast.parse(file.read_text(encoding='utf-8'))) or ''
  found = [
    flag
    for flag in flags.flags_of(name)
    if not flag.meaning.startswith('Internal')
  ]
  if not entry_points.in_clone():  # Where there is no experiments/.
    about = about.replace('python -m experiments.', 'dppo ')
  # Python joins the lines of a command that a docstring continues.
  about = re.sub(r'(?<=\S) {2,}(?=--)', ' \\\\\n  ', about)
  lines = [about, '', 'Flags:', *map(_flag_line, found)]
  names = _LISTS.get(name.partition('.')[0], ())
  if any(flag.kind == 'config' for flag in found):
    names = names or ('configs', 'presets')
    lines += [
      '',
      f'Keys of a config: {entry_points.keys_file()}; override with'
      ' --config.SECTION.KEY=VALUE.',
    ]
  for kind in names:
    lines += ['', *_names(kind)]
  return '\n'.join(lines)


def _flag_line(flag: flags.Flag) -> str:
  name = (
    f'--[no]{flag.name}'
    if flag.kind in ('bool', 'boolean')
    else (f'--{flag.name}')
  )
  default = flag.default
  if isinstance(default, list | tuple):
    default = ','.join(map(str, default))
  told = '' if default in (None, '', False) else f' [{default}]'
  return f'  {name:<20}  {flag.meaning}{told}'


def _names(kind: str) -> list[str]:
  text = f'{kind} (--list={kind}): {", ".join(listing.KINDS[kind]())}'
  return textwrap.wrap(
    text, _WIDTH, subsequent_indent='  ', break_on_hyphens=False
  )
