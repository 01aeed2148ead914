r"""Readings of one answer: as a list, as a named value, with a unit.

Pure functions of a canonical text; `matching` compares the results.
"""

import re

from dppo_jax.rewards.answers import parts, quantities
from dppo_jax.rewards.answers.parts import Relation
from dppo_jax.rewards.answers.spelling import squeeze
from dppo_jax.rewards.answers.units import read_unit

THOUSANDS = re.compile(r'-?[1-9][0-9]{0,2}(?:,[0-9]{3})+')
NAME = re.compile(
  r'(?:m\s*)?(?:\\angle\s*)?\|?(?:[A-Za-z]|[A-Z]{2,4}|\\[A-Za-z]+(?![A-Za-z])'
  r'|\\text\{[A-Za-z ]{1,40}\}|[A-Za-z]{3,}(?: [A-Za-z]+){0,3})'
  r"(?:_\{?\w{1,4}\}?)?'?(?:\^\{-1\})?(?:\s*\([A-Za-z0-9, ]{1,12}\))?\|?"
)
_COMMAND = re.compile(r'\\(?:text|begin|end)\{[^{}]*\}|\\[A-Za-z]+')
_VARIABLES = frozenset(
  f'\\{name}'
  for name in (
    'alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota'
    ' kappa lambda mu nu xi rho sigma tau upsilon phi varphi chi psi omega'
    ' Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega'.split()
  )
)
# 'A: 18' is how GSM8K's model solutions write an answer, not a choice.
PREFIXED = re.compile(r'[A-J]\s*[:.]\s*\S')
TWO_NUMBERS = re.compile(r'[0-9.]\s+[0-9.]')
_BARE_UNIT = re.compile(
  r'(?P<number>.*[0-9A-Za-z)}])\s*(?P<unit>(?<![A-Za-z\\])[A-Za-z]{2,20}'
  r'(?:\s*\^\s*\{?[23]\}?)?)'
)
_TEXT_UNIT = re.compile(
  r'(?P<number>.*\S)\s*(?P<unit>\\text\{[^{}]*\}(?:\s*\^\s*\{?[23]\}?)?)'
)


def letters(text: str) -> set[str]:
  r"""Variables of a formula: its letters, except in commands, and e and i.

  >>> sorted(letters(r'2\pi r + \theta e^{it}'))
  ['\\theta', 'r', 't']
  """
  commands = _COMMAND.findall(text)
  named = {name for name in commands if name in _VARIABLES}
  rest = _COMMAND.sub(' ', text)
  return named | (set(re.findall('[A-Za-z]', rest)) - {'e', 'i'})


def without_unit(text: str) -> str:
  r"""Text without its unit: `12\pi \text{ cm}^2` -> `12\pi`; `\$2x` -> `2x`."""
  text = text.removeprefix('\\$').strip()
  for pattern in (_TEXT_UNIT, _BARE_UNIT):
    found = pattern.fullmatch(text)
    if found is None:
      continue
    unit = read_unit(found['unit'])
    if unit is None or unit.scale != 1:
      continue
    if pattern is _TEXT_UNIT or unit.name != '?':
      return found['number'].strip()
  return text


def identical(answer: str, reference: str) -> bool:
  """Whether two texts differ by spaces only."""
  return squeeze(answer) == squeeze(reference)


def letter_unit(answer: str, reference: str) -> bool:
  r"""Whether `5m` equals `5\text{ m}`: in the reference, m is a unit."""
  number = quantities.read_canonical(answer, letters=True)
  expected = quantities.read_canonical(reference)
  return (
    number is not None
    and expected is not None
    and bool(expected.unit)
    and number.unit == expected.unit
    and number.value == expected.value
  )


def assignments(text: str) -> list[str] | None:
  """Values of `x = 1, y = 2`, sorted by variable; None if no such list."""
  found = {}
  for piece in parts.split(text, (',', ';', 'and'), spaced=False):
    relation = parts.read_relation(piece)
    if relation is None or relation.signs != ('=',):
      return None
    name, value = relation.sides
    if not re.fullmatch('[A-Za-z]', name) or name in found:
      return None
    found[name] = value
  return [found[name] for name in sorted(found)] if len(found) > 1 else None


def coordinates(text: str) -> list[str] | None:
  """Items of `(1, 2)`; None if it is no tuple."""
  group = parts.read_group(text)
  if group is None or (group.opening, group.closing) != ('(', ')'):
    return None
  return parts.split(group.inner, (',', ';'), spaced=False)


def readings(text: str) -> list[list[str]]:
  """Possible lists of a text: `25,130` is one number, or two."""
  group = parts.read_group(text)
  if group is not None and group.opening == '{' and group.closing == '}':
    text = group.inner
  every = _pieces(text, spaced=False)
  if not THOUSANDS.search(text):
    return [every]
  found = [_pieces(text, spaced=True)]
  return found if found[0] == every else [*found, every]


def _pieces(text: str, *, spaced: bool) -> list[str]:
  pieces = parts.split(text, (',', ';', 'and', 'or'), spaced=spaced)
  return [one for piece in pieces for one in parts.both_signs(piece)]


def is_name(text: str, value: str) -> bool:
  """Whether a side, as in `f(x) = x^2`, only names the other side."""
  if not NAME.fullmatch(text) or text in ('\\pi', 'e', 'i', '\\infty'):
    return False
  head = text.partition('(')[0]
  return not letters(head) & letters(value)


def assigned(relation: Relation) -> str | None:
  """Value that a relation assigns to a name; None if it assigns none."""
  if relation.signs not in (('=',), ('~',)) or not relation.sides[0]:
    return None
  first, second = relation.sides
  if is_name(first, second):
    return second
  return first if is_name(second, first) else None


def rounds(value: str, rounded: str) -> bool:
  """Whether a number is the other one, rounded; False for formulas."""
  exact, given = (quantities.read_canonical(t) for t in (value, rounded))
  if exact is None or given is None:
    return False
  decimals = len(re.sub(r'[^0-9.].*', '', rounded).partition('.')[2])
  return abs(exact.value - given.value) * 10**decimals * 2 <= 1
