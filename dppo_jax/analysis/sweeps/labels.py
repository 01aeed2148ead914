"""Labels of runs: by what differs between their configs, else their folders."""

from collections.abc import Iterator, Mapping, Sequence
import itertools
import pathlib
from typing import Any

from dppo_jax.analysis.sweeps import variants
from dppo_jax.runtime.storage import workdir

_MOST_KEYS = 3
_MOST_CANDIDATES = 40  # Keys of which a label is made, the likeliest first.
_MOST_LETTERS = 60
# Sections from likely to unlikely subjects of a comparison; others follow.
_SECTIONS = (
  'trust_region',
  'objective',
  'advantages',
  'optimizer',
  'learner',
  'sampling',
  'rewards',
  'data',
  'model',
)
_LOW, _HIGH = '_low', '_high'
_ABSENT = 'absent'

Config = Mapping[str, Any]


def label_runs(
  paths: Sequence[pathlib.Path], configs: Sequence[Config]
) -> list[str]:
  """A label of each run, no two of them equal.

  Where at most three keys differ, all of them: 'divergence=binary_tv, seed=1'.
  Else the fewest that tell the runs apart. Runs that so few keys do not tell
  apart, such as those of one config, have the last parts of their folders.

  Args:
    paths: folders of the runs, all different.
    configs: values by dotted path.
  """
  keys = sorted(differing(configs), key=_rank)
  texts = [_texts(keys, config) for config in configs]
  names = list(dict.fromkeys(itertools.chain(*texts)))
  for chosen in _choices(names):
    found = [
      variants.named({name: text.get(name, _ABSENT) for name in chosen})
      for text in (dict(each) for each in texts)
    ]
    whole = max(map(len, found)) <= _MOST_LETTERS
    if whole and len(set(found)) == len(found):
      return found
  return from_folders(paths)


def differing(configs: Sequence[Config]) -> list[str]:
  """Dotted paths whose values differ, but for those that change no number."""
  keys = dict.fromkeys(itertools.chain(*configs))
  return [
    key
    for key in keys
    if not any(f'{key}.'.startswith(f'{free}.') for free in workdir.FREE_KEYS)
    and len({_show(config, key) for config in configs}) > 1
  ]


def from_folders(paths: Sequence[pathlib.Path]) -> list[str]:
  """The last parts of each path, as many as tell all of them apart."""
  most = max(len(path.parts) for path in paths)
  for count in range(1, most):
    labels = ['/'.join(path.parts[-count:]) for path in paths]
    if len(set(labels)) == len(labels):
      return labels
  return [str(path) for path in paths]


def _choices(names: Sequence[str]) -> Iterator[Sequence[str]]:
  """All keys if they are few, then one, two, three of them."""
  if len(names) <= _MOST_KEYS:
    yield names
  for count in range(1, _MOST_KEYS + 1):
    yield from itertools.combinations(names[:_MOST_CANDIDATES], count)


def _rank(key: str) -> tuple[int, int]:
  """Order of keys in labels: by section, the seed last."""
  section = key.partition('.')[0]
  if section == 'seed':
    return len(_SECTIONS) + 1, 0
  place = len(_SECTIONS)
  if section in _SECTIONS:
    place = _SECTIONS.index(section)
  return place, not key.endswith(('.rule', '.divergence'))


def _texts(keys: Sequence[str], config: Config) -> dict[str, str]:
  """Values by key; one key for two bounds, 'delta' or 'delta_low'."""
  texts: dict[str, str] = {}
  for key in keys:
    texts[key] = _show(config, key)
  for key in keys:
    stem = key.removesuffix(_LOW)
    other = stem + _HIGH
    if stem != key and texts.get(other) == texts.get(key):
      texts = {
        stem if name == key else name: text
        for name, text in texts.items()
        if name != other
      }
  return texts


def _show(config: Config, key: str) -> str:
  value = config[key] if key in config else _ABSENT
  return f'{value:g}' if isinstance(value, float) else str(value)
