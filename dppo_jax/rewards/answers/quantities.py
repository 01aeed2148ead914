r"""Reads a number as an exact fraction: 1,234.50, 3/4, \frac{3}{4}, 12 %, 2e3.

Nothing is evaluated: a bounded text is matched once by a pattern without
nested repetition, and its digits become a Fraction.
"""

from fractions import Fraction
import re
from typing import NamedTuple

from dppo_jax.rewards.answers.spelling import canonical
from dppo_jax.rewards.answers.units import contradict, read_unit

MAX_LENGTH = 64  # Characters of a number worth reading.
MAX_EXPONENT = 64  # Of ten.
_MAX_TEXT = 200  # Characters of a number and its unit.

_DECIMAL = (
  r'(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])(?:\.[0-9]*)?'
  r'|[1-9][0-9]{0,2}(?: [0-9]{3})+(?! ?[0-9])(?:\.[0-9]*)?'
  r'|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)'
)
_NUMBER = re.compile(
  rf'(?P<number>{_DECIMAL})'
  r'(?:[eE](?P<exponent>[+-]?[0-9]{1,4})'
  r'|\s*(?:\*|\\times|\\cdot)\s*10\s*\^\s*'
  r'(?P<power>\{\s*[+-]?[0-9]{1,4}\s*\}|[+-]?[0-9]))?',
  re.ASCII,
)
_FRACTION = re.compile(
  rf'(?P<top>{_DECIMAL})\s*/\s*(?P<sign>-?)(?P<bottom>{_DECIMAL})', re.ASCII
)
_LATEX_FRACTION = re.compile(
  rf'(?P<whole>[0-9]*)\s*\\frac\s*'
  rf'(?:\{{\s*(?P<top>-?{_DECIMAL})\s*\}}|(?P<a>[0-9]))\s*'
  rf'(?:\{{\s*(?P<bottom>-?{_DECIMAL})\s*\}}|(?P<b>[0-9]))',
  re.ASCII,
)
_MIXED = re.compile(
  r'(?P<whole>[0-9]+)\s+(?P<top>[0-9]+)\s*/\s*(?P<bottom>[0-9]+)', re.ASCII
)
_PERIODIC = re.compile(
  r'(?P<whole>[0-9]*)\.(?P<fixed>[0-9]*)\\overline\s*'
  r'(?:\{\s*(?P<period>[0-9]{1,16})\s*\}|(?P<digit>[0-9]))',
  re.ASCII,
)
_PLAIN = re.compile(r'-?(?:[0-9]{1,64}|[0-9]{1,32}\.[0-9]{1,31})', re.ASCII)
_SIGN = re.compile(r'(?:\s|\\?\$)*([+-]?)(?:\s|\\?\$)*')
_SPACED_DIGITS = re.compile(r'-?\s*[0-9](?:\s+[0-9])*', re.ASCII)


class Quantity(NamedTuple):
  """A number, exactly.

  Attributes:
    value: as written, not divided by 100 for a percent sign.
    unit: name of a `Unit`: '' for none, '%', '$', ….
  """

  value: Fraction
  unit: str


def _decimal(text: str) -> Fraction:
  """Fraction of a decimal: '1,234.5' -> 2469/2; it may have a sign."""
  return Fraction(text.replace(',', '').replace(' ', ''))


def _ratio(whole: str, top: str, bottom: str) -> Fraction | None:
  below = _decimal(bottom)
  if not below:
    return None
  value, integer = _decimal(top) / below, int(whole or 0)
  return None if integer and value < 0 else integer + value


def _leading(text: str) -> tuple[Fraction, str] | None:
  """Unsigned number at the start of a text, and the rest of the text."""
  if found := _MIXED.match(text):
    value = _ratio(found['whole'], found['top'], found['bottom'])
  elif found := _LATEX_FRACTION.match(text):
    top, bottom = found['top'] or found['a'], found['bottom'] or found['b']
    value = _ratio(found['whole'], top, bottom)
  elif found := _PERIODIC.match(text):
    fixed, period = found['fixed'], found['period'] or found['digit']
    repeated = Fraction(int(period), 10 ** len(period) - 1)
    value = int(found['whole'] or 0) + Fraction(
      int(fixed or 0) + repeated, 10 ** len(fixed)
    )
  elif found := _FRACTION.match(text):
    value = _ratio('', found['top'], found['bottom'])
    if value is not None and found['sign']:
      value = -value
  elif found := _NUMBER.match(text):
    power = found['exponent'] or found['power'] or '0'
    exponent = int(power.strip('{} '))
    if abs(exponent) > MAX_EXPONENT:
      return None
    value = _decimal(found['number']) * Fraction(10) ** exponent
  else:
    return None
  if value is None or found.end() > MAX_LENGTH:
    return None
  return value, text[found.end() :]


def read_plain(text: str) -> Fraction | None:
  """Fraction of bare digits with optional sign and decimal point: a fast path.

  >>> read_plain('-1.50')
  Fraction(-3, 2)
  """
  return Fraction(text) if _PLAIN.fullmatch(text) else None


def read_canonical(text: str, *, letters: bool = False) -> Quantity | None:
  """Like `read_quantity`, for a text in canonical form.

  Args:
    text: see `spelling.canonical`.
    letters: whether one bare letter after the number is a unit.
  """
  if len(text) > _MAX_TEXT:
    return None
  if (plain := read_plain(text)) is not None:
    return Quantity(plain, '')
  if text.startswith('(') and text.endswith(')'):
    inner = text[1:-1].strip()
    if '(' in inner or ')' in inner or ',' in inner:
      return None
    text = inner
  sign = _SIGN.match(text)
  found = _leading(text[sign.end() :]) if sign else None
  if sign is None or found is None:
    return None
  value, rest = found
  money = '$' in sign[0]
  if money and rest.strip() in ('\\%', '%'):
    return None
  unit = read_unit(rest, letters=letters)
  if unit is None:
    return None
  value *= unit.scale
  name = '$' if money else unit.name
  return Quantity(-value if sign[1] == '-' else value, name)


def read_quantity(text: str) -> Quantity | None:
  r"""Quantity of a text that is one number, with an optional unit.

  Thousands separators, a currency sign, a percent sign, a full stop at the
  end, fractions (also mixed, '1 1/2'), `\frac`, repeating decimals, powers of
  ten, unit words and Markdown are supported.

  >>> read_quantity('$1,234.50')
  Quantity(value=Fraction(2469, 2), unit='$')
  >>> read_quantity('12 apples').value
  Fraction(12, 1)
  >>> read_quantity('3 5') is None
  True

  Args:
    text: anything.

  Returns:
    The quantity; None if it is no number, longer than `MAX_LENGTH`, or its
    power of ten is beyond `MAX_EXPONENT`.
  """
  if len(text) > _MAX_TEXT:
    return None
  plain = read_plain(text)
  if plain is not None:
    return Quantity(plain, '')
  return read_canonical(canonical(text))


def read_digits(text: str) -> Fraction | None:
  """Integer written digit by digit: '0 5 7 9' is 579.

  Tasks whose tokens are digits write numbers this way, references included.
  """
  if len(text) > 2 * MAX_LENGTH or not _SPACED_DIGITS.fullmatch(text.strip()):
    return None
  return Fraction(''.join(text.split()))


def same_quantity(answer: Quantity, reference: Quantity) -> bool:
  """Whether two quantities are exactly equal.

  If only one has a percent sign, both readings count: 20 % is 0.2, and is 20.
  If both name a unit, the units must not contradict each other.
  """
  if contradict(answer.unit, reference.unit):
    return False
  first, second = answer.value, reference.value
  if answer.unit == '%' and not reference.unit:
    return first in (second, 100 * second)
  if reference.unit == '%' and not answer.unit:
    return second in (first, 100 * first)
  return first == second
