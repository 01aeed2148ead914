"""The value of --config: a file, a config that comes with the package."""

from collections.abc import Iterator, Sequence
import pathlib
import re
import traceback

from dppo_jax.commands import entry_points, listing
from dppo_jax.configs.presets import PRESETS
from dppo_jax.suggestions import nearest, suggest

_FLAG = '--config'
_OF_A_PRESET = 'quickstart'  # The config that a preset alone stands for.


def resolve(argv: Sequence[str]) -> list[str]:
  """The command line with files in place of names of shipped configs.

  `--config=tiny:grpo`, `--config=tiny.py` and `--config=configs/tiny.py`, in
  any working directory, name configs/tiny.py of the package, and
  `--config=grpo` is the preset of the quickstart; a file that exists is kept.

  Args:
    argv: the command line.
  """
  replaced = list(argv)
  for index, argument in enumerate(argv):
    if argument.startswith(f'{_FLAG}='):
      flag, value = f'{_FLAG}=', argument.partition('=')[2]
    elif index and argv[index - 1] == _FLAG:
      flag, value = '', argument
    else:
      continue
    replaced[index] = f'{flag}{_resolved(value)}'
  return replaced


def _resolved(value: str) -> str:
  path, colon, preset = value.partition(':')
  file = pathlib.Path(path)
  if file.is_file():
    return value
  if path in PRESETS and not colon:
    path, colon, preset = _OF_A_PRESET, ':', path
    file = pathlib.Path(path)
  name = file.name.removesuffix('.py')
  named = file.parent in (pathlib.Path(), pathlib.Path('configs'))
  if named and name in listing.configs():
    path = str(entry_points.CONFIGS / f'{name}.py')
  return f'{path}{colon}{preset}'


def problem(argv: Sequence[str]) -> str:
  """Says which file of a resolved command line is no config; '' of none."""
  for path in files(argv):
    text = str(path)
    if path.is_dir():
      found = [each.as_posix() for each in sorted(path.glob('*.py'))[:3]]
      some = f' ({", ".join(found)})' if found else ''
      return f'--config: {text!r} is a folder; name a file in it{some}.'
    if path.is_file() and path.suffix != '.py':
      return (
        f'--config: {text!r} is no Python file; a config is a .py file with'
        ' get_config(). What a run recorded in config.json is read by'
        ' --workdir of evaluate and export.'
      )
    if not path.is_file():
      return f'--config: no file {text!r}{suggest(text, _near(path))}'
  return ''


def _near(path: pathlib.Path) -> list[str]:
  """Configs that a path may mean: those beside it, or those by name."""
  beside = sorted(
    str(each) for each in path.parent.glob('[a-z]*.py') if _is_config(each)
  )
  known = list(listing.configs())
  if path.suffix == '.py' and beside:
    return beside if path.parent != pathlib.Path() else [*beside, *known]
  if not nearest(str(path), known) and nearest(str(path), PRESETS):
    return list(PRESETS)
  return known


def _is_config(path: pathlib.Path) -> bool:
  return 'def get_config' in path.read_text(encoding='utf-8', errors='replace')


def explain(error: BaseException, argv: Sequence[str]) -> str:
  """A line about an error of the config file; '' if it is not of one.

  Args:
    error: raised while flags were parsed.
    argv: the resolved command line.
  """
  for path in files(argv):
    shown = str(path)
    if "has no attribute 'get_config'" in str(error):
      return (
        f'--config: {shown} has no get_config(); define it:'
        " get_config(preset='') returns a config, as those of"
        f' {entry_points.shown(entry_points.CONFIGS)} do.'
      )
    other = re.match(r"'(\w+)' object has no attribute 'to_dict'", str(error))
    if other:
      return (
        f'--config: get_config() of {shown} returns a {other[1]}; return a'
        ' ConfigDict, default.get_config() with some keys set.'
      )
    if re.search(r'get_config\(\) takes 0 positional', str(error)):
      return (
        f'--config: get_config() of {shown} takes no preset; leave out what'
        f" follows ':', or define get_config(preset='')."
      )
    if isinstance(error, SyntaxError) and _same(error.filename, path):
      return f'--config: {shown}, line {error.lineno}: {error.msg}.'
    lines = [
      frame.lineno
      for frame in traceback.extract_tb(error.__traceback__)
      if _same(frame.filename, path)
    ]
    if lines:
      kind = type(error).__name__
      return f'--config: {shown}, line {lines[-1]}: {kind}: {error}'
  return ''


def _same(name: str | None, path: pathlib.Path) -> bool:
  return name is not None and pathlib.Path(name).absolute() == path.absolute()


def files(argv: Sequence[str]) -> Iterator[pathlib.Path]:
  """Paths given to --config."""
  for argument, value in zip(argv, [*argv[1:], ''], strict=True):
    if argument.startswith(f'{_FLAG}='):
      value = argument.partition('=')[2]
    elif argument != _FLAG:
      continue
    yield pathlib.Path(value.partition(':')[0])
