"""Names that a command line may hold, each with a line about it: --list."""

import ast
from collections.abc import Callable, Mapping
from typing import Any

from dppo_jax.commands import entry_points
from dppo_jax.configs import presets
from dppo_jax.rewards.verifiers import VERIFIERS
from dppo_jax.suggestions import suggest

# Modules beside the configs and the figures that are none.
_NO_CONFIGS = ('__init__', 'presets', 'published', 'thresholds')
_SHOWN = ('rule', 'divergence', 'anchor')  # Of a preset, before the others.


def configs() -> dict[str, str]:
  """First line of each config that comes with the package, by name."""
  return {
    path.stem: entry_points.first_line(path.read_text(encoding='utf-8'))
    for path in sorted(entry_points.CONFIGS.glob('*.py'))
    if path.stem not in _NO_CONFIGS
  }


def preset_lines() -> dict[str, str]:
  """Settings of each preset that differ from those of no trust region."""
  plain = presets.PRESETS['pg_is']
  return {
    name: _settings(preset, plain) for name, preset in presets.PRESETS.items()
  }


def figures() -> dict[str, str]:
  """Title and paper of each figure, by name."""
  found = {}
  for path in sorted((entry_points.FOLDER / 'figures').glob('[a-z]*.py')):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    for node in tree.body:
      if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == (
        'FIGURE'
      ):
        words = _keywords(node.value)
        found[path.stem] = f'{words["title"]} ({words["paper"]})'
  return found


def verifiers() -> dict[str, str]:
  """First line of each verifier's docstring, by name."""
  return {
    name: (row.fn.__doc__ or '').partition('\n')[0]
    for name, row in VERIFIERS.items()
  }


KINDS: Mapping[str, Callable[[], dict[str, str]]] = {
  'configs': configs,
  'presets': preset_lines,
  'figures': figures,
  'verifiers': verifiers,
}
_ABOUT = {
  'configs': '--config=NAME: recipes of the papers, and small runs',
  'presets': '--config=CONFIG:NAME: methods, by the keys they set',
  'figures': 'dppo figures --only=NAME',
  'verifiers': '--config.rewards.verifier=NAME, or a weighted sum of several',
}
_SYNONYMS = {'recipes': 'configs'}


def describe(kind: str) -> str:
  """Names of a kind, or of all kinds where it is '', a line each.

  Raises:
    ValueError: there is no such kind.
  """
  kind = _SYNONYMS.get(kind, kind)
  if kind and kind not in KINDS:
    raise ValueError(f'--list: unknown {kind!r}{suggest(kind, KINDS)}')
  blocks = []
  for each in [kind] if kind else KINDS:
    found = KINDS[each]()
    width = max(map(len, found))
    lines = [f'  {name:{width}}  {about}' for name, about in found.items()]
    blocks.append('\n'.join((f'{each} ({_ABOUT[each]}):', *lines)))
  return '\n\n'.join(blocks)


def _settings(preset: Mapping[str, Any], plain: Mapping[str, Any]) -> str:
  keys = {
    path.partition('.')[2]: value
    for path, value in preset.items()
    if plain.get(path) != value
  }
  ordered = [key for key in _SHOWN if key in keys]
  ordered += [key for key in keys if key not in _SHOWN]
  shown = ' '.join(f'{key}={keys[key]}' for key in ordered)
  return shown or 'no trust region'


def _keywords(node: ast.expr) -> dict[str, Any]:
  """Literal keyword arguments of a call."""
  return {
    keyword.arg: keyword.value.value
    for keyword in getattr(node, 'keywords', ())
    if keyword.arg and isinstance(keyword.value, ast.Constant)
  }
