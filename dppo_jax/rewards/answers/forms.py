r"""Answers that are compared exactly, without parsing formulas.

Numbers with units, numbers in a base, times and ratios, words, multiple-choice
letters, and the ways to say that there is no solution. Case and order of
letters matter: `ABD` is not `ADB`.
"""

from fractions import Fraction
import re
from typing import NamedTuple

from dppo_jax.rewards.answers import quantities
from dppo_jax.rewards.answers.quantities import Quantity
from dppo_jax.rewards.answers.spelling import squeeze, words_of


class Form(NamedTuple):
  """Answer of a kind that is compared exactly.

  Attributes:
    kind: 'number', 'based', 'colon', 'nothing', 'infinite' or 'words'.
    value: compared for equality within a kind.
  """

  kind: str
  value: Quantity | tuple[str, ...]


_NUMERALS = {
  word: value
  for value, word in enumerate(
    'zero one two three four five six seven eight nine ten eleven twelve'
    ' thirteen fourteen fifteen sixteen seventeen eighteen nineteen'.split()
  )
} | {
  word: 20 + 10 * i
  for i, word in enumerate(
    'twenty thirty forty fifty sixty seventy eighty ninety'.split()
  )
}
_BASES = {**_NUMERALS, 'binary': 2, 'octal': 8, 'decimal': 10}
_BASED = re.compile(
  r'([0-9][0-9A-Fa-f]{0,63}|[A-F][0-9A-F]{1,63})\s*'
  r'(?:_\s*\{?\s*([0-9]{1,2}|[a-z]{3,9})\s*\}?'
  r'|\(?\s*(?:in\s+)?base[\s-]*([0-9]{1,2}|[a-z]{3,9})\s*\)?)'
)
_COLON = re.compile(
  r'([0-9]{1,9}(?:\.[0-9]{1,9})?(?:\s*:\s*[0-9]{1,9}(?:\.[0-9]{1,9})?){1,5})'
  r'\s*([ap])?(?:\.?\s*m\.?)?',
  re.IGNORECASE,
)
_HOUR = re.compile(r'([0-9]{1,2})\s*([ap])\.?\s*m\.?', re.IGNORECASE)
_FRACTION = re.compile(
  r'\\frac\s*\{\s*([0-9]{1,9})\s*\}\s*\{\s*([0-9]{1,9})\s*\}'
  r'|([0-9]{1,9})\s*/\s*([0-9]{1,9})'
)
_TO = re.compile(r'(?<=[0-9])\s+to\s+(?=[0-9])')
_NOTHING = frozenset(
  (
    'none',
    'no solution',
    'no solutions',
    'no real solution',
    'no real solutions',
    'no such number',
    'no such numbers',
    'no roots',
    'no real roots',
    'nothing',
    'empty set',
    'the empty set',
    'empty',
    'there is no solution',
    'there are no solutions',
    '\\emptyset',
  )
)
_NOWHERE = frozenset(
  ('dne', 'does not exist', 'undefined', 'not defined', 'diverges')
)
_WORDS = re.compile(r"[A-Za-z][A-Za-z0-9 .':!?/-]*")
_LISTED = re.compile(r'(?<![A-Za-z])(?:and|or)(?![A-Za-z])')
_SHORT_WORDS = frozenset(('yes', 'no', 'true', 'false', 'odd', 'even'))
_CHOICE = re.compile(
  r'(?:(?:option|choice|answer)\s+)?'
  r'(?:\(\s*([A-J])\s*\)|\[\s*([A-J])\s*\]|([A-J])\s*[).:]|([A-J])$)\s*(.*)',
  re.DOTALL | re.IGNORECASE,
)
_OTHER_CHOICE = re.compile(
  r'\(\s*[A-J]\s*\)|(?<![A-Za-z])[A-J]\s*[).:]|(?<![A-Za-z])(?:or|and)'
  r'(?![A-Za-z])|(?<![A-Za-z\\])[A-J]$'
)


def _spelled(words: str) -> int | None:
  """Value of a number in words: 'forty-two' -> 42; below one million."""
  total, current, seen = 0, 0, False
  for word in re.split(r'[\s-]+', words.lower().replace(' and ', ' ')):
    if word in _NUMERALS:
      value = _NUMERALS[word]
      # 'ten six' and 'six ten' are two numbers.
      if seen and (current % 100 and not (current % 10 == 0 and value < 10)):
        return None
      if seen and current % 100 and current % 100 < 20:
        return None
      current, seen = current + value, True
    elif word == 'hundred' and 0 < current < 10:
      current *= 100
    elif word == 'thousand' and 0 < current < 1000 and not total:
      total, current = current * 1000, 0
      seen = False
    else:
      return None
  return total + current if seen or total else None


def _base(text: str) -> Form | None:
  found = _BASED.fullmatch(text)
  if found is None:
    return None
  name = found[2] or found[3]
  base = int(name) if name.isdigit() else _BASES.get(name, 0)
  return Form('based', (found[1].upper().lstrip('0'), str(base)))


def _clock(text: str) -> Form | None:
  if found := _HOUR.fullmatch(text):
    return Form('colon', (found[1].lstrip('0'), '0', found[2].lower()))
  found = _COLON.fullmatch(_TO.sub(':', text).rstrip('.'))
  if found is None:
    return None
  if found[2] is None and text.rstrip('. ').lower().endswith('m'):
    return None
  parts = [str(Fraction(part.strip())) for part in found[1].split(':')]
  return Form('colon', (*parts, (found[2] or '').lower()))


def _fold(word: str) -> str:
  """Word in lower case if it is capitalized or all in capitals."""
  title = len(word) > 2 and word[1:].islower()
  shout = word.isupper() and (len(word) > 4 or word.lower() in _SHORT_WORDS)
  known = word.lower() in _SHORT_WORDS
  return word.lower() if title or shout or known else word


def _is_run(word: str) -> bool:
  """Whether letters are consecutive: abcd and zyx are products of variables."""
  codes = sorted(map(ord, word))
  return codes == list(range(codes[0], codes[0] + len(codes)))


def _words(text: str) -> Form | None:
  if len(text) > 200 or not _WORDS.fullmatch(text) or _LISTED.search(text):
    return None
  words = [
    _fold(word)
    for piece in text.replace('-', ' ').split()
    if (word := piece.strip(".,':;!?").replace('.', ''))
  ]
  letters = [word for word in words if word.isalpha()]
  decided = any(
    (len(word) > 3 and not _is_run(word))
    or (len(word) > 1 and word.isupper())
    or word in _SHORT_WORDS
    for word in letters
  )
  if not decided and not (len(words) > 1 and any(len(w) > 1 for w in letters)):
    return None
  if words[0] == 'the' and len(words) > 1:
    words = words[1:]
  return Form('words', tuple(words))


def read_form(text: str) -> Form | None:
  r"""Exact form of an answer.

  >>> read_form('101_{2}')
  Form(kind='based', value=('101', '2'))
  >>> read_form('x+1') is None
  True

  Args:
    text: canonical, see `spelling`.

  Returns:
    The form; None if there is none, and formulas must be compared.
  """
  words = words_of(text)
  low = words.lower().strip('.! ')
  if low in _NOTHING:
    return Form('nothing', ('no solution',))
  if low in _NOWHERE:
    return Form('nothing', ('undefined',))
  if found := _base(words) or _clock(words):
    return found
  if (number := quantities.read_canonical(text)) is not None:
    return Form('number', number)
  if squeeze(text).lstrip('+-') == '\\infty':
    return Form('infinite', ('-' if text.startswith('-') else '',))
  if re.fullmatch(r'[A-Za-z][A-Za-z -]{2,80}', words):
    value = _spelled(words)
    if value is not None:
      return Form('number', Quantity(Fraction(value), ''))
  return _words(words)


def read_choice(text: str) -> tuple[str, str] | None:
  r"""Multiple-choice letter and the text beside it: `(B) 17`, `C.`, `D`.

  >>> read_choice(r'\text{(C)} 42')
  ('C', '42')

  Args:
    text: canonical.

  Returns:
    Letter and text; None if there is no letter, or a second one.
  """
  found = _CHOICE.fullmatch(words_of(text).strip())
  if found is None:
    return None
  letter = found[1] or found[2] or found[3] or found[4]
  rest = found[5].strip()
  if not letter.isupper() or _OTHER_CHOICE.search(rest):
    return None
  return letter, rest


def _same_base(answer: Form, reference: Form) -> bool:
  """Whether numbers are equal, at least one in a base; it may be omitted."""
  if answer.kind == reference.kind:
    return answer.value == reference.value
  based, number = (
    (answer, reference) if answer.kind == 'based' else (reference, answer)
  )
  if not isinstance(number.value, Quantity) or number.value.unit:
    return False
  if based is answer and based.value[1] != '10':
    return False
  return based.value[0] == str(number.value.value)


def same_ratio(answer: str, reference: str) -> bool:
  r"""Whether `3:4` and `\frac{3}{4}` are the same ratio, in either order.

  The terms must be equal: a time is not a quotient.
  """
  for ratio, fraction in ((answer, reference), (reference, answer)):
    terms = _FRACTION.fullmatch(fraction)
    form = _clock(words_of(ratio))
    if terms is not None and form is not None:
      first, second = terms[1] or terms[3], terms[2] or terms[4]
      return form.value == (str(int(first)), str(int(second)), '')
  return False


def same_form(answer: Form | None, reference: Form | None) -> bool | None:
  """Whether two exact forms are the same answer.

  Returns:
    The decision; None if formulas must be compared: one has no exact form, and
    the other has none or is a number.
  """
  if answer is None or reference is None:
    known = answer or reference
    return None if known is None or known.kind == 'number' else False
  if 'based' in (answer.kind, reference.kind):
    return _same_base(answer, reference)
  if answer.kind != reference.kind:
    return False
  if isinstance(answer.value, Quantity):
    if not isinstance(reference.value, Quantity):
      return False
    return quantities.same_quantity(answer.value, reference.value)
  if answer.kind == 'colon' and not reference.value[-1]:
    return answer.value[:-1] == reference.value[:-1]
  return answer.value == reference.value
