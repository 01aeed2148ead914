r"""Reads a number as an exact fraction: 1,234.50, 3/4, \frac{3}{4}, 12 %, 2e3.

Nothing is evaluated: a bounded text is matched once by a pattern without
nested repetition, and its digits become a Fraction.
"""

from fractions import Fraction
import itertools
import re
from typing import NamedTuple

MAX_LENGTH = 64  # Characters of a number worth reading.
MAX_EXPONENT = 64  # Of ten.

_DECIMAL = (
  r'(?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)'
)
_NUMBER = re.compile(
  rf'(?P<number>{_DECIMAL})'
  r'(?:[eE](?P<exponent>[+-]?[0-9]{1,4})'
  r'|(?:\*|\\times|\\cdot|×)10\^(?P<power>\{[+-]?[0-9]{1,4}\}|[+-]?[0-9]))?',
  re.ASCII,
)
_FRACTION = re.compile(
  rf'(?P<top>{_DECIMAL})/(?P<sign>-?)(?P<bottom>{_DECIMAL})', re.ASCII
)
_LATEX_FRACTION = re.compile(
  rf'(?P<whole>[0-9]*)\\[dt]?frac(?:\{{(?P<top>-?{_DECIMAL})\}}'
  rf'\{{(?P<bottom>-?{_DECIMAL})\}}|(?P<a>[0-9])(?P<b>[0-9]))',
  re.ASCII,
)
_MIXED = re.compile(
  r'(?P<whole>[0-9]+)\s+(?P<top>[0-9]+)/(?P<bottom>[0-9]+)', re.ASCII
)
# Marks that say nothing about the value.
_MARKS = ('\\$', '$', '€', '£', '\\!', '\\,', '\\;', '\\left', '\\right')


class Quantity(NamedTuple):
  """A number, exactly.

  Attributes:
    value: as written, before any percent sign.
    percent: whether one follows.
  """

  value: Fraction
  percent: bool


def _decimal(text: str) -> Fraction:
  """'1,234.5' -> 2469/2; a sign may come first."""
  return Fraction(text.replace(',', ''))


def _unsigned(text: str, original: str) -> Fraction | None:
  """Reads what follows the sign; None where it is no number."""
  if found := _MIXED.fullmatch(original):
    if int(found['bottom']) == 0:
      return None
    return int(found['whole']) + Fraction(
      int(found['top']), int(found['bottom'])
    )
  if found := _NUMBER.fullmatch(text):
    exponent = int((found['exponent'] or found['power'] or '0').strip('{}'))
    if abs(exponent) > MAX_EXPONENT:
      return None
    return _decimal(found['number']) * Fraction(10) ** exponent
  if found := _FRACTION.fullmatch(text):
    bottom = _decimal(found['bottom'])
    sign = -1 if found['sign'] else 1
    return sign * _decimal(found['top']) / bottom if bottom else None
  if found := _LATEX_FRACTION.fullmatch(text):
    bottom = _decimal(found['bottom'] or found['b'])
    if not bottom:
      return None
    fraction = _decimal(found['top'] or found['a']) / bottom
    whole = int(found['whole'] or 0)
    return None if whole and fraction < 0 else whole + fraction
  return None


def read_number(text: str) -> Quantity | None:
  r"""Reads a text that is one number and nothing else.

  Thousands separators, a currency sign, a percent sign, a full stop at the
  end, fractions (also mixed, '1 1/2'), `\frac` and powers of ten are
  understood. Words of one character each are one number: '0 5 7 9' is 579.

  >>> read_number('$1,234.50')
  Quantity(value=Fraction(2469, 2), percent=False)
  >>> read_number('9^9') is None
  True

  Args:
    text: anything.

  Returns:
    The number; None where it is none, or longer than `MAX_LENGTH`, or its
    power of ten is beyond `MAX_EXPONENT`.
  """
  if len(text) > 2 * MAX_LENGTH:  # Room for digits that are spaced.
    return None
  for mark in _MARKS:
    text = text.replace(mark, '')
  text = text.replace('{,}', ',').replace('−', '-').strip()
  words = text.split()
  percent = bool(words) and words[-1].endswith('%')
  if percent:
    text = text.removesuffix('%').removesuffix('\\').strip()
    words = text.split()
  unsigned = text.lstrip('+-').strip()
  apart = any(len(word) > 1 for word in words)
  follows = any(
    first[-1].isdigit() and second[0].isdigit()
    for first, second in itertools.pairwise(words)
  )
  if apart and follows and not _MIXED.fullmatch(unsigned):
    return None  # Two numbers, not one.
  joined = ''.join(words).removesuffix('.')
  if not joined or len(joined) > MAX_LENGTH:
    return None
  sign = -1 if joined[0] == '-' else 1
  if joined[0] in '+-':
    joined = joined[1:]
  value = _unsigned(joined, unsigned)
  return None if value is None else Quantity(sign * value, percent)


def same_number(answer: Quantity, reference: Quantity) -> bool:
  """Whether they are equal, exactly.

  Where only one has a percent sign it may stand for 'percent of', or for the
  unit asked for: 20 % is 0.2, and is 20.
  """
  if answer.percent == reference.percent:
    return answer.value == reference.value
  first, second = answer.value, reference.value
  if answer.percent:
    return first == second or first / 100 == second
  return first == second or first == second / 100
