"""Grids and zips of config keys -> variants of a sweep.

  --grid=trust_region.divergence=binary_tv,topk_tv
  --grid=trust_region.delta=.1,.2

are four variants, every value with every other;

  --zip=trust_region.divergence=binary_tv,binary_kl
  --zip=trust_region.delta=.2,.05

are two: zips vary together, and every grid with them. A key that exists with
`_low` and `_high` only sets both, as `trust_region.delta` does; `preset` names
presets, which the other keys may override.
"""

from collections.abc import Mapping, Sequence
import itertools
import math
from typing import Any, NamedTuple

from dppo_jax.commands import entry_points
from dppo_jax.suggestions import suggest

PRESET = 'preset'
BASE = 'base'  # The variant of a sweep over seeds alone.
MAX_VARIANTS = 1000
_ENDS = ('_low', '_high')
_BOOLS = {'true': True, 'false': False}

Presets = Mapping[str, Mapping[str, Any]]


class Variant(NamedTuple):
  """One config of a sweep.

  Attributes:
    name: 'divergence=binary_tv, delta=0.1'.
    choices: text of the value by key, as given; names the families.
    overrides: value by path of the config.
  """

  name: str
  choices: Mapping[str, str]
  overrides: Mapping[str, Any]


class _Choice(NamedTuple):
  key: str
  text: str
  overrides: Mapping[str, Any]


def expand(
  config: Mapping[str, Any],
  grids: Sequence[str],
  zips: Sequence[str],
  presets: Presets,
) -> list[Variant]:
  """Variants in the order of the flags, the last grid varying fastest.

  Args:
    config: every key, as plain nested dicts; defines the types of values.
    grids: 'key=value,value'.
    zips: as `grids`, of equal lengths.
    presets: settings by dotted path.

  Raises:
    ValueError: a key or preset does not exist, a value is not of its type or
      occurs twice, two flags set one key, or zips differ in length.
  """
  zipped = [_axis('--zip', text, config, presets) for text in zips]
  if len({len(axis) for axis in zipped}) > 1:
    counts = ', '.join(f'{axis[0].key} {len(axis)}' for axis in zipped)
    raise ValueError(
      f'--zip: values that vary together must be as many: {counts}.'
    )
  axes = [list(zip(*zipped, strict=True))] if zipped else []
  for text in grids:
    axes.append([(c,) for c in _axis('--grid', text, config, presets)])
  count = math.prod(map(len, axes))
  if count > MAX_VARIANTS:
    raise ValueError(
      f'--grid: {count:,} variants; at most {MAX_VARIANTS:,} a sweep.'
    )
  combined = [sum(parts, ()) for parts in itertools.product(*axes)]
  _check_disjoint(combined[0])
  return [_variant(choices) for choices in combined]


def named(choices: Mapping[str, str]) -> str:
  """Name from keys and values: 'divergence=binary_tv, delta=0.1'."""
  last = [key.rpartition('.')[2] for key in choices]
  return (
    ', '.join(
      f'{short if last.count(short) == 1 else key}={text}'
      for short, (key, text) in zip(last, choices.items(), strict=True)
    )
    or BASE
  )


def _variant(choices: Sequence[_Choice]) -> Variant:
  overrides: dict[str, Any] = {}
  # A preset sets many keys, which the others may override.
  for choice in sorted(choices, key=lambda one: one.key != PRESET):
    overrides |= choice.overrides
  texts = {choice.key: choice.text for choice in choices}
  return Variant(named(texts), texts, overrides)


def _axis(
  flag: str, text: str, config: Mapping[str, Any], presets: Presets
) -> list[_Choice]:
  """Choices of one flag."""
  key, equals, listed = text.partition('=')
  key, values = key.strip(), [value.strip() for value in listed.split(',')]
  if not equals or not key or not all(values):
    raise ValueError(
      f'{flag}: got {text!r}; a key and its values, KEY=VALUE,VALUE.'
    )
  if key == 'seed':
    raise ValueError(f'{flag}: seed; --seeds=N runs seeds 0 to N-1 of each.')
  if key == PRESET:
    for value in values:
      if value not in presets:
        raise ValueError(f'{flag}: unknown {value!r}{suggest(value, presets)}')
    choices = [_Choice(key, value, presets[value]) for value in values]
  else:
    paths = _paths(flag, key, config)
    choices = []
    for value in values:
      parsed = [_parse(flag, key, value, _at(config, path)) for path in paths]
      shown = f'{parsed[0]:g}' if isinstance(parsed[0], float) else value
      both = dict(zip(paths, parsed, strict=True))
      choices.append(_Choice(key, shown, both))
  texts = [choice.text for choice in choices]
  twice = [value for value in texts if texts.count(value) > 1]
  if twice:
    raise ValueError(f'{flag}: {key}={twice[0]} occurs twice; remove one.')
  return choices


def _paths(flag: str, key: str, config: Mapping[str, Any]) -> list[str]:
  """Config keys that a key of a flag sets."""
  section, _, last = key.rpartition('.')
  try:
    siblings = _at(config, section) if section else config
    keys = set(siblings)
  except (KeyError, TypeError):
    sections = [name for name, v in config.items() if isinstance(v, Mapping)]
    raise ValueError(
      f'{flag}: {key}: no section {section!r}{suggest(section, sections)}'
    ) from None
  prefix = f'{section}.' if section else ''
  if last in keys and not isinstance(siblings[last], Mapping):
    return [key]
  both = [last + end for end in _ENDS]
  if keys.issuperset(both):
    return [prefix + name for name in both]
  short = {n.removesuffix('_low') for n in keys if n.endswith('_low')}
  raise ValueError(
    f'{flag}: {key}: no such key{suggest(last, keys | short)}'
    f' {entry_points.keys_file()} lists and explains all keys.'
  )


def _at(config: Mapping[str, Any], path: str) -> Any:
  found: Any = config
  for name in path.split('.'):
    found = found[name]
  return found


def _parse(flag: str, key: str, text: str, current: Any) -> Any:
  """Value of the type of its key."""
  kind = type(current)
  if kind is str:
    return text
  if kind is bool:
    wanted, parsed = 'true or false', _BOOLS.get(text.lower())
  elif kind in (int, float):
    wanted = 'a number' if kind is float else 'a whole number'
    try:
      parsed = kind(text)
    except ValueError:
      parsed = None
  else:
    raise ValueError(
      f'{flag}: {key}: a {kind.__name__} cannot be swept; write a config file'
      ' a value.'
    )
  if parsed is None:
    raise ValueError(f'{flag}: {key}={text!r}; {wanted}.')
  return parsed


def _check_disjoint(choices: Sequence[_Choice]) -> None:
  owner: dict[str, str] = {}
  keys: list[str] = []
  for choice in choices:
    if choice.key in keys:
      raise ValueError(f'--grid: {choice.key} occurs in two flags; use one.')
    keys.append(choice.key)
    for path in () if choice.key == PRESET else choice.overrides:
      if path in owner:
        raise ValueError(
          f'--grid: {owner[path]} and {choice.key} both set {path}; use one.'
        )
      owner[path] = choice.key
