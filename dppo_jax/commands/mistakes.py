"""Words of a command line that name nothing, and what was meant by them."""

from collections.abc import Collection, Mapping
from typing import Any

from dppo_jax.commands import entry_points, keys, listing
from dppo_jax.configs.presets import PRESETS
from dppo_jax.suggestions import nearest, suggest

# What other programs call a flag.
_ALIASES: Mapping[str, str] = dict.fromkeys(
  (
    'checkpoint_dir',
    'dir',
    'folder',
    'log_dir',
    'logdir',
    'out',
    'output',
    'output_dir',
    'run_dir',
    'save_dir',
  ),
  'workdir',
)
_METHODS = ('algo', 'algorithm', 'method', 'preset')
_RESUME = ('continue', 'resume', 'restore', 'resume_from_checkpoint')


def unknown_command(name: str, known: Collection[str]) -> str:
  """Says that there is no command of a name, and which one was meant."""
  if name.startswith('-'):
    return (
      f'a command comes before its flags: dppo train {name} …; dppo alone'
      ' lists the commands.'
    )
  if name in entry_points.OF_A_CLONE:
    return (
      f'{name} writes pages of the repository, which an installed package does'
      f' not have; run python -m experiments.{name} in a clone.'
    )
  close = nearest(name, known)
  if close:
    return (
      f'unknown command {name!r}; did you mean {close!r}? dppo alone lists the'
      ' commands.'
    )
  return f'unknown command {name!r}{suggest(name, known)}'


def unknown_flag(
  name: str, given: str, flags: Collection[str], paths: Mapping[str, Any]
) -> str:
  """Says that there is no flag of a name, and which one was meant.

  Args:
    name: without dashes.
    given: its value; '' for none.
    flags: of the command.
    paths: of `keys.known`; none for a command without --config.
  """
  plain = name.replace('-', '_').casefold()
  if name == 'config':
    return (
      '--config: no such flag of this command'
      + (
        ', which reads the config that the run recorded in its --workdir.'
        if 'workdir' in flags
        else '.'
      )
      + f' Its flags: {_listed(flags)}.'
    )
  for found in (plain, _ALIASES.get(plain, '')):
    if found in flags:
      shown = f'--{found}={given}' if given else f'--{found}'
      return f'--{name}: no such flag; did you mean {shown}?'
  if 'config' in flags:
    if plain in _METHODS:
      example = given if given in PRESETS else 'PRESET'
      return (
        f'--{name}: no such flag; a method stands after the config:'
        f' --config=CONFIG:{example} (--list=presets).'
      )
    if plain in _RESUME and 'workdir' in flags:
      return (
        f'--{name}: no such flag, and none is needed: the same command resumes'
        ' in its --workdir.'
      )
    likely = keys.meant(plain, paths, given, misspelled=False)
    if not likely and not nearest(plain, flags):
      likely = keys.meant(plain, paths, given)
    if likely:
      return f'--{name}: no such flag; did you mean {likely}?'
  return f'--{name}: no such flag{suggest(name, [f"--{x}" for x in flags])}'


def stray(word: str, paths: Mapping[str, Any]) -> str:
  """Says that a word is no flag, and which one was meant.

  Args:
    word: of the command line.
    paths: of `keys.known`; none for a command without --config.
  """
  name, equals, value = word.partition('=')
  bare = name.removeprefix('config.')
  hint = 'a flag is --name=value.'
  if paths and equals:
    likely = f'--config.{bare}={value}'
    if not keys.is_key(bare, paths):
      likely = keys.meant(bare, paths, value)
    if likely:
      hint = f'did you mean {likely}?'
  elif paths and word.partition(':')[0] in {*listing.configs(), *PRESETS}:
    hint = f'did you mean --config={word}?'
  elif paths and word.endswith('.py'):
    hint = f'did you mean --config={word}?'
  return f'unexpected argument {word!r}; {hint}'


def _listed(flags: Collection[str]) -> str:
  return ', '.join(f'--{flag}' for flag in flags)
