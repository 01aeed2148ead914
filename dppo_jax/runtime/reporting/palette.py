"""The color, line and name of every rule, the same in every picture.

The colors are those of Okabe and Ito (jfly.uni-koeln.de/color), which people
with the usual kinds of color blindness tell apart, and darker or lighter shades
of the same hue within a family. Yellow is left out: it is not seen on white.
"""

from collections.abc import Iterable
import re
from typing import NamedTuple


class Style(NamedTuple):
  """Color, and line style."""

  color: str
  line: str = '-'


BLACK, GRAY, LIGHT = '#000000', '#6b7280', '#b0b7c3'
# Rule -> style. PPO, GRPO and ClipHigher are one rule, the ratio clip on the
# rollout policy, with other thresholds.
RULES = {
  'PG-IS': Style('#d55e00', '--'),
  'PG-TIS': Style('#8c3d00', ':'),
  'PPO': Style('#e69f00'),
  'GRPO': Style('#e69f00'),
  'GRPO-ClipHigher': Style('#e69f00'),
  'MiniRL': Style('#cc79a7', '--'),
  'MiniRL-TIS': Style('#7d3560', ':'),
  'DPPO-Binary-TV': Style('#0072b2'),
  'DPPO-Binary-KL': Style('#56b4e9'),
  'DPPO-TopK-TV': Style('#009e73', '--'),
  'DPPO-TopK-KL': Style('#70cfb0', '--'),
  'DPPO-Exact-TV': Style('#00543d', ':'),
  'DPPO-Exact-KL': Style('#8fa8b8', ':'),
  'CPPO': Style(BLACK),
}
# Rules with other settings that have a style of their own.
SETTINGS = {
  'DPPO-Binary-KL, recomputed anchor': Style('#1f5f85', '--'),
  'CPPO, weights only': Style('#5c5c5c', '--'),
  'CPPO, budget only': Style('#a3a3a3'),
  'CPPO, shuffled weights': Style('#9c5a6b', ':'),
  'CPPO, soft gate': Style('#7f5539'),
  'CPPO, P90 budget': Style('#b08968', '--'),
}
# Families, in which a crowded panel is taken apart.
FAMILIES = {
  'no trust region': ('PG-IS', 'PG-TIS'),
  'mask of bad updates': ('Mask-0.5', 'Mask-0.8', 'Mask-0.5-Recompute'),
  'ratio clip': (
    *('PPO', 'GRPO', 'GRPO-ClipHigher', 'MiniRL', 'MiniRL-TIS'),
    *('Relax-both', 'Relax-high', 'Relax-low'),
  ),
  'DPPO': tuple(name for name in RULES if name.startswith('DPPO')),
  'CPPO': ('CPPO',),
}
# Masked tokens by the sign of their advantage, also on the page of a ledger.
NEGATIVE, POSITIVE = '#882255', '#44aa99'
# Of tokens that a soft rule weighs, 0 < M < 1.
INSIDE = '#ddcc77'
# Of what is no rule: runs, sizes, metrics (the muted scheme of Paul Tol).
OTHERS = (
  '#332288',
  '#cc6677',
  '#117733',
  '#999933',
  '#aa4499',
  '#6699cc',
  '#661100',
  '#888888',
)
# Several labels of one color differ by line.
LINES = ('-', '--', ':', '-.')
# Names of variants in the figures -> the name that is shown.
NAMES = {
  'DPPO': 'DPPO-Binary-TV',
  'CPPO-P90': 'CPPO, P90 budget',
  'weights': 'CPPO, weights only',
  'budget': 'CPPO, budget only',
  'shuffled': 'CPPO, shuffled weights',
  'soft': 'CPPO, soft gate',
  'KL': 'CPPO, Binary KL',
  'Top-K': 'CPPO, Top-K TV',
  'budget .03': 'CPPO, budget .03',
  'w_min .6': 'CPPO, w_min .6',
  'both sides': 'DPPO-Binary-TV',
  'negatives only': 'DPPO-Binary-TV, A < 0',
  'positives only': 'DPPO-Binary-TV, A > 0',
  'Exact-TV': 'DPPO-Exact-TV',
  'Exact-KL': 'DPPO-Exact-KL',
  'mass_1': 'K = 1',
  'mass_2': 'K = 2',
  'mass_5': 'K = 5',
  'mass_10': 'K = 10',
}
_BEGINNINGS = {
  'TopK-TV ': 'DPPO-TopK-TV, K = ',
  'TV ': 'DPPO-Binary-TV ',
  'KL ': 'DPPO-Binary-KL ',
  'clip ': 'GRPO, clip ',
}


def shown(variant: str) -> str:
  """Name of a figure's variant as shown, by the family of its rule."""
  if variant in NAMES:
    return NAMES[variant]
  for beginning, name in _BEGINNINGS.items():
    if variant.startswith(beginning):
      return name + variant[len(beginning) :]
  return variant


def rule_of(label: str) -> str | None:
  """Rule of `RULES` that a label names, or a preset of it; None for none.

  Settings may follow after a space, a comma or a colon.
  """
  head = _head(label)
  return next((name for name in RULES if name.lower() == head), None)


def family_of(label: str) -> str:
  """Family that a label names a member of; '' for none."""
  head = _head(label)
  for name, members in FAMILIES.items():
    if head in (member.lower() for member in members):
      return name
  return ''


def _head(label: str) -> str:
  """Name without its settings, as `DPPO-Binary-TV` and `dppo_binary_tv`."""
  return re.split(r'[ ,:]', label, maxsplit=1)[0].lower().replace('_', '-')


def styles(labels: Iterable[str]) -> dict[str, Style]:
  """Styles of all labels of a picture, each other than the others'.

  A label that names no rule never gets the color of one.
  """
  found: dict[str, Style] = {}
  free = [Style(color, line) for line in LINES for color in OTHERS]
  # Rules first, so that their lines are their own.
  for label in sorted(dict.fromkeys(labels), key=lambda one: one not in RULES):
    if label in SETTINGS:
      found[label] = SETTINGS[label]
      continue
    rule = rule_of(label)
    if rule is None:
      found[label] = free.pop(0) if free else Style(OTHERS[0])
      continue
    color, line = RULES[rule]
    taken = {style.line for style in found.values() if style.color == color}
    lines = [line, *(one for one in LINES if one != line)]
    left = [one for one in lines if one not in taken]
    found[label] = Style(color, (left or lines)[0])
  return found
