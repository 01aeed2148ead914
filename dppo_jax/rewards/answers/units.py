r"""Text after a number: a percent sign, degrees, a unit, a word that scales.

Any word may be the unit, except the few that change the number's meaning.
"""

import re
from typing import NamedTuple


class Unit(NamedTuple):
  """Unit of a number.

  Attributes:
    name: '' for none, '%', '$', 'degree', a known unit, or '?' for any other
      word.
    scale: factor of the number: 10**6 for 'million'.
  """

  name: str
  scale: int


NO_UNIT = Unit('', 1)

_SPELLINGS = {
  '%': r'percent pct percentage',
  '$': 'dollar dollars usd bucks euro euros pounds',
  'cent': 'cent cents',
  'degree': 'degree degrees deg degs',
  'radian': 'radian radians rad',
  'mm': 'millimeter millimeters millimetre millimetres',
  'cm': 'centimeter centimeters centimetre centimetres',
  'm': 'meter meters metre metres',
  'km': 'kilometer kilometers kilometre kilometres kms',
  'in': 'inch inches',
  'ft': 'foot feet',
  'yd': 'yard yards yds',
  'mi': 'mile miles',
  'mg': 'milligram milligrams',
  'g': 'gram grams',
  'kg': 'kilogram kilograms kilo kilos kgs',
  'lb': 'pound lbs',
  'oz': 'ounce ounces',
  'ml': 'milliliter milliliters millilitre millilitres',
  'l': 'liter liters litre litres',
  'gal': 'gallon gallons',
  's': 'second seconds sec secs',
  'min': 'minute minutes mins',
  'h': 'hour hours hr hrs',
  'day': 'day days',
  'week': 'week weeks',
  'month': 'month months',
  'year': 'year years yr yrs',
}
_KNOWN = {
  **{name: name for name in _SPELLINGS},
  **{
    word: name for name, words in _SPELLINGS.items() for word in words.split()
  },
}
_SCALES = {
  'hundred': 10**2,
  'thousand': 10**3,
  'million': 10**6,
  'billion': 10**9,
  'trillion': 10**12,
}
# Words after a number that change its value, or begin another answer.
_NO_UNITS = frozenset(
  'or and not no nor but to from than through plus minus times over by mod'
  ' divided squared cubed half halves third thirds quarter quarters fifths'
  ' tenths hundredths point dozen dozens pi factorial root sqrt if when for'
  ' except either neither maybe perhaps wrong is are equals more less about'
  ' otherwise instead else versus vs base one two three four five six seven'
  ' eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen'
  ' eighteen nineteen twenty thirty forty fifty sixty seventy eighty'
  ' ninety'.split()
)
_POWER = re.compile(r'\s*\^\s*\{?([23])\}?$')
_WORD = re.compile(r"[A-Za-z][A-Za-z.'-]*")
_FOREIGN = re.compile(r'[^\x00-\x7f\s]{1,8}')
_SLASHED = re.compile(r'[A-Za-z]{1,8}(?:\s*/\s*[A-Za-z]{1,8})')
_REMARK = re.compile(r'\(\s*([A-Za-z][^()]*)\)$')
_REASON = re.compile(r'(?:since|because|as|i\.e\.|so)\b', re.IGNORECASE)
_MAX_WORDS = 6


def _remark(text: str) -> str | None:
  """Words of a remark in brackets at the end; None if there is none.

  A remark with numbers might be a second answer, so it must give a reason;
  a reason is not a unit.
  """
  found = _REMARK.search(text)
  if found is None or re.search(r'\b(?:or|not)\b', found[1]):
    return None
  if _REASON.match(found[1]):
    return 'so'
  return None if re.search('[0-9]', found[1]) else found[1]


def _named(words: list[str], power: str) -> str:
  """Known unit named by words; '?' for other words."""
  if words[0] in ('square', 'sq', 'sq.', 'cubic', 'cu'):
    power = '2' if words[0].startswith('sq') else '3'
    words = words[1:]
  name = _KNOWN.get(words[0]) if len(words) == 1 else None
  if name is None:
    return '%' if words == ['per', 'cent'] else '?'
  return f'{name}^{power}' if power else name


def read_unit(text: str, *, letters: bool = False) -> Unit | None:
  r"""Unit given by the text after a number.

  >>> read_unit(r'\text{ dollars}')
  Unit(name='$', scale=1)
  >>> read_unit('or 43') is None
  True

  Args:
    text: canonical, see `spelling`.
    letters: whether a single bare letter is a unit; else `5 m` is 5 times m.

  Returns:
    The unit; None if the text is no unit.
  """
  text = text.strip()
  if not text:
    return NO_UNIT
  if text in ('\\%', '%'):
    return Unit('%', 1)
  if text.startswith('^\\circ'):
    text = text.removeprefix('^\\circ').strip()
    plain = text.removeprefix('\\text{').removesuffix('}').strip()
    return Unit('degree', 1) if plain in ('', 'C', 'F') else None
  if remark := _remark(text):
    before = text[: _REMARK.search(text).start()].strip()  # pyright: ignore[reportOptionalMemberAccess]
    return read_unit(before or f'\\text{{{remark[:64]}}}', letters=letters)
  if _FOREIGN.fullmatch(text):
    return Unit('?', 1)
  power = ''
  if found := _POWER.search(text):
    power, text = found[1], text[: found.start()]
  textual = text.startswith('\\text{') and text.find('}') == len(text) - 1
  if textual:
    text = text[6:-1].strip()
  if _REMARK.fullmatch(text):
    text = text[1:-1]
  if _SLASHED.fullmatch(text):
    return Unit('?', 1) if textual or not power else None
  words = text.lower().replace(',', ' ').split()
  if words and words[0] in ('$', '\\%', '%') and len(words) == 1:
    return Unit(words[0].strip('\\'), 1)
  scale = 1
  if words and words[0] in _SCALES:
    scale, words = _SCALES[words[0]], words[1:]
    if not words:
      return Unit('', scale)
  if not 0 < len(words) <= _MAX_WORDS or _NO_UNITS.intersection(words):
    return None
  if not all(_WORD.fullmatch(word) or word == '/' for word in words):
    return None
  short = len(words) == 1 and len(words[0].strip('.')) == 1
  if short and not (textual or letters):
    return None
  if power and not textual and _KNOWN.get(words[0]) is None:
    return None
  return Unit(_named([word.rstrip('.') for word in words], power), scale)


def contradict(answer: str, reference: str) -> bool:
  """Whether two names of units are incompatible.

  '%' is incompatible with any other name; other units only if both are known.
  """
  if answer == reference or not answer or not reference:
    return False
  return '?' not in (answer, reference) or '%' in (answer, reference)
