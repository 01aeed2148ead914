r"""Whether an answer means what its reference means.

Answers are taken apart: lists into items, sets into intervals, relations into
sides. What can be decided exactly is (`forms`); only formulas are left to
sympy, and only where both sides have the same letters.
"""

from collections.abc import Callable
import re
from typing import Any, NamedTuple

from dppo_jax.rewards import cost, forms, quantities, solution_sets, structure
from dppo_jax.rewards.spelling import squeeze, words_of
from dppo_jax.rewards.structure import Relation
from dppo_jax.rewards.units import read_unit

MAX_QUESTIONS = 64  # Asked of sympy about one answer.
_MAX_DEPTH = 3  # Of lists within lists.

_THOUSANDS = re.compile(r'-?[1-9][0-9]{0,2}(?:,[0-9]{3})+')
_NAME = re.compile(
  r"(?:m\s*)?(?:\\angle\s*)?\|?(?:[A-Za-z]|[A-Z]{2,4}|\\[A-Za-z]+(?![A-Za-z])"
  r"|\\text\{[A-Za-z ]{1,40}\}|[A-Za-z]{3,}(?: [A-Za-z]+){0,3})"
  r"(?:_\{?\w{1,4}\}?)?'?(?:\^\{-1\})?(?:\s*\([A-Za-z0-9, ]{1,12}\))?\|?"
)
_COMMAND = re.compile(
  r'\\(?:text|begin|end)\{[^{}]*\}|\\[A-Za-z]+'
)
_VARIABLES = frozenset(
  f'\\{name}'
  for name in (
    'alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota'
    ' kappa lambda mu nu xi rho sigma tau upsilon phi varphi chi psi omega'
    ' Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega'.split()
  )
)
_TWO_NUMBERS = re.compile(r'[0-9.]\s+[0-9.]')
_BARE_UNIT = re.compile(
  r'(?P<number>.*[0-9A-Za-z)}])\s*(?P<unit>(?<![A-Za-z\\])[A-Za-z]{2,20}'
  r'(?:\s*\^\s*\{?[23]\}?)?)'
)
_TEXT_UNIT = re.compile(
  r'(?P<number>.*\S)\s*(?P<unit>\\text\{[^{}]*\}(?:\s*\^\s*\{?[23]\}?)?)'
)


class UntamedError(ValueError):
  """An answer that is too dear to compute, or no formula."""


class Questions(NamedTuple):
  """What is asked of `equivalence`, which workers alone may import."""

  equivalent: Callable[[str, str], bool]
  same_relation: Callable[[tuple[str, str], tuple[str, str], bool], bool]


def letters(text: str) -> set[str]:
  r"""Free letters of a formula: not those of commands, of e and of i.

  >>> sorted(letters(r'2\\pi r + \\theta e^{it}'))
  ['\\\\theta', 'r', 't']
  """
  commands = _COMMAND.findall(text)
  named = {name for name in commands if name in _VARIABLES}
  rest = _COMMAND.sub(' ', text)
  return named | (set(re.findall('[A-Za-z]', rest)) - {'e', 'i'})


def _without_unit(text: str) -> str:
  r"""`12\pi \text{ cm}^2` -> `12\pi`; `\$2x` -> `2x`."""
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


class Matcher:
  """Compares the parts of one answer with those of its reference."""

  def __init__(self, ask: Callable[[], Questions]):
    """Remembers how to ask.

    Args:
      ask: imports what decides formulas; not called where none is left.
    """
    self._ask = ask
    self._left = MAX_QUESTIONS

  def same(self, answer: str, reference: str, depth: int = 0) -> bool:
    """Whether they mean the same; both are canonical.

    Raises:
      UntamedError: the answer holds what is too dear to compute.
    """
    if squeeze(answer) == squeeze(reference):
      return True
    if depth > _MAX_DEPTH:
      return False
    decided = self._whole(answer, reference)
    if decided is not None:
      return decided
    for expected in _readings(reference):
      for given in _readings(answer):
        if len(given) != len(expected):
          continue
        if len(expected) == 1:
          # One item has no comma to read in two ways.
          if self._item(given[0], expected[0], depth):
            return True
        elif self._multiset(given, expected, depth):
          return True
    return False

  def _whole(self, answer: str, reference: str) -> bool | None:
    """What is decided before commas are looked at; None for the rest."""
    expected = forms.read_choice(reference)
    given = forms.read_choice(answer)
    if expected is not None:
      if given is not None:
        return given[0] == expected[0]
      if not expected[1]:
        return self._assigned_choice(answer, expected[0])
      # The value beside the letter is an answer, too.
      return self.same(answer, expected[1], _MAX_DEPTH)
    if forms.same_ratio(answer, reference):
      return True
    if not _THOUSANDS.fullmatch(reference):
      exact = forms.same_form(
        forms.read_form(answer), forms.read_form(reference)
      )
      if exact is not None:
        return exact
    if solution_sets.is_marked(answer) or solution_sets.is_marked(reference):
      first = solution_sets.read_set(answer)
      second = solution_sets.read_set(reference)
      if first is not None and second is not None:
        return solution_sets.same_set(first, second, self._end)
    for read, other in ((_assignments, _coordinates),
                        (_coordinates, _assignments)):
      given, wanted = read(answer), other(reference)
      if given and wanted:
        return len(given) == len(wanted) and all(map(self._end, given, wanted))
    return None

  def _assigned_choice(self, answer: str, letter: str) -> bool:
    relation = structure.read_relation(answer)
    if relation is None or relation.signs != ('=',):
      return False
    name, value = relation.sides
    return bool(_NAME.fullmatch(name)) and squeeze(value) == letter

  def _end(self, answer: str, reference: str) -> bool:
    return self._item(answer, reference, _MAX_DEPTH)

  def _multiset(
    self, answer: list[str], reference: list[str], depth: int
  ) -> bool:
    """Whether two lists have the same items, each as often."""
    if len(reference) > structure.MAX_PARTS:
      return False
    rest = list(reference)
    for item in answer:
      found = next(
        (i for i, r in enumerate(rest) if squeeze(r) == squeeze(item)), None
      )
      if found is None:
        found = next(
          (i for i, r in enumerate(rest) if self._item(item, r, depth)), None
        )
      if found is None:
        return False
      del rest[found]
    return True

  def _item(self, answer: str, reference: str, depth: int) -> bool:
    """Whether two items of lists mean the same."""
    if squeeze(answer) == squeeze(reference):
      return True
    exact = forms.same_form(forms.read_form(answer), forms.read_form(reference))
    if exact is not None:
      return exact
    if solution_sets.is_marked(answer) and solution_sets.is_marked(reference):
      first = solution_sets.read_set(answer)
      second = solution_sets.read_set(reference)
      if first is not None and second is not None:
        return solution_sets.same_set(first, second, self._end)
    first, second = (structure.read_group(t) for t in (answer, reference))
    if first is not None and second is not None and ',' in reference:
      return first[:2] == second[:2] and self._ordered(
        first.inner, second.inner, depth
      )
    given = structure.read_relation(answer)
    expected = structure.read_relation(reference)
    if given is not None or expected is not None:
      return self._relations(answer, given, reference, expected, depth)
    return self._formula(answer, reference)

  def _ordered(self, answer: str, reference: str, depth: int) -> bool:
    """Whether the items of two tuples are the same, one by one."""
    first = structure.split(answer, (',', ';'), spaced=False)
    second = structure.split(reference, (',', ';'), spaced=False)
    return len(first) == len(second) <= structure.MAX_PARTS and all(
      self.same(a, r, depth + 1) for a, r in zip(first, second, strict=True)
    )

  def _relations(
    self,
    answer: str,
    given: Relation | None,
    reference: str,
    expected: Relation | None,
    depth: int,
  ) -> bool:
    """Compares relations as wholes; `x = 5` with 5 by its value."""
    if given is None or expected is None:
      if expected is not None:
        value = _assigned(expected)
        return value is not None and self._item(answer, value, depth)
      return given is not None and self._chain(given, reference, depth)
    if len(given.sides) != len(expected.sides):
      return False
    turned = Relation(
      given.sides[::-1],
      tuple(structure.TURNED.get(sign, sign) for sign in given.signs[::-1]),
    )
    free = letters(answer)
    if free != letters(reference):
      return False
    for way in (given, turned):
      if way.signs != expected.signs:
        continue
      if all(map(_identical, way.sides, expected.sides)):
        return True
      if free and all(
        self._side(a, r) for a, r in zip(way.sides, expected.sides, strict=True)
      ):
        return True
    if not free or len(given.sides) != 2 or '' in given.sides:
      return False
    for way in (given, turned):
      if way.signs == expected.signs and way.signs[0] in structure.COMPARED:
        self._admit(answer)
        ordered = way.signs[0][0] in '<>'
        first, second = way.sides, expected.sides
        return self._ask().same_relation(
          (first[0], first[1]), (second[0], second[1]), ordered
        )
    return False

  def _side(self, answer: str, reference: str) -> bool:
    if squeeze(answer) == squeeze(reference):
      return True
    exact = forms.same_form(forms.read_form(answer), forms.read_form(reference))
    return self._formula(answer, reference) if exact is None else exact

  def _chain(self, given: Relation, reference: str, depth: int) -> bool:
    """Whether `x = a = b` gives the reference: all its values must."""
    if set(given.signs) == {'~'} and len(given.sides) == 2:
      value, rounded = given.sides
      if _NAME.fullmatch(value):
        return self._item(rounded, reference, depth)
      return _rounds(value, rounded) and self._item(value, reference, depth)
    if set(given.signs) != {'='} or len(given.sides) > 4:
      return False
    sides = list(given.sides)
    if len(sides) == 2 and _is_name(sides[1], sides[0]):
      sides = sides[:1]
    elif _is_name(sides[0], sides[1]):
      sides = sides[1:]
    return all(self._item(side, reference, depth) for side in sides)

  def _formula(self, answer: str, reference: str) -> bool:
    """Asks whether two formulas are equal."""
    self._admit(answer)
    if _letter_unit(answer, reference):
      return True
    answer, reference = _without_unit(answer), _without_unit(reference)
    number = quantities.read_canonical(answer)
    expected = quantities.read_canonical(reference)
    if number is not None and expected is not None:
      return quantities.same_quantity(number, expected)
    if letters(answer) != letters(reference):
      return False
    if not answer.isascii() or _TWO_NUMBERS.search(answer):
      return False
    if any(c in answer and c not in reference for c in cost.ENDLESS):
      return False
    return self._ask().equivalent(answer, reference)

  def _admit(self, answer: str) -> None:
    if not cost.is_tame(answer):
      raise UntamedError(answer[:40])
    self._left -= 1
    if self._left < 0:
      raise UntamedError('more items than are compared')


def _identical(answer: str, reference: str) -> bool:
  return squeeze(answer) == squeeze(reference)


def _letter_unit(answer: str, reference: str) -> bool:
  r"""Whether `5m` is `5\text{ m}`: the reference says that m is a unit."""
  number = quantities.read_canonical(answer, letters=True)
  expected = quantities.read_canonical(reference)
  return (
    number is not None
    and expected is not None
    and bool(expected.unit)
    and number.unit == expected.unit
    and number.value == expected.value
  )


def _assignments(text: str) -> list[str] | None:
  """Values of `x = 1, y = 2`, by the letters; None where it is no such list."""
  found = {}
  for piece in structure.split(text, (',', ';', 'and'), spaced=False):
    relation = structure.read_relation(piece)
    if relation is None or relation.signs != ('=',):
      return None
    name, value = relation.sides
    if not re.fullmatch('[A-Za-z]', name) or name in found:
      return None
    found[name] = value
  return [found[name] for name in sorted(found)] if len(found) > 1 else None


def _coordinates(text: str) -> list[str] | None:
  """Items of `(1, 2)`; None where it is no tuple."""
  group = structure.read_group(text)
  if group is None or (group.opening, group.closing) != ('(', ')'):
    return None
  return structure.split(group.inner, (',', ';'), spaced=False)


def _readings(text: str) -> list[list[str]]:
  """Lists that a text may be: `25,130` is one number, and two."""
  group = structure.read_group(text)
  if group is not None and group.opening == '{' and group.closing == '}':
    text = group.inner
  every = _pieces(text, spaced=False)
  if not _THOUSANDS.search(text):
    return [every]
  found = [_pieces(text, spaced=True)]
  return found if found[0] == every else [*found, every]


def _pieces(text: str, *, spaced: bool) -> list[str]:
  pieces = structure.split(text, (',', ';', 'and', 'or'), spaced=spaced)
  return [one for piece in pieces for one in structure.both_signs(piece)]


def _is_name(text: str, value: str) -> bool:
  """Whether a side of `f(x) = x^2` only names what the other one is."""
  if not _NAME.fullmatch(text) or text in ('\\pi', 'e', 'i', '\\infty'):
    return False
  head = text.partition('(')[0]
  return not letters(head) & letters(value)


def _assigned(relation: Relation) -> str | None:
  """The value that a relation gives a name; None where it gives none."""
  if relation.signs not in (('=',), ('~',)) or not relation.sides[0]:
    return None
  first, second = relation.sides
  if _is_name(first, second):
    return second
  return first if _is_name(second, first) else None


def _rounds(value: str, rounded: str) -> bool:
  """Whether a number is the other one, rounded; formulas are believed not."""
  exact, given = (quantities.read_canonical(t) for t in (value, rounded))
  if exact is None or given is None:
    return False
  decimals = len(re.sub(r'[^0-9.].*', '', rounded).partition('.')[2])
  return abs(exact.value - given.value) * 10**decimals * 2 <= 1


def same_answer(
  answer: str, reference: str, ask: Callable[[], Questions]
) -> bool:
  """Whether an answer means what its reference means.

  Args:
    answer: canonical, see `spelling`; hostile, of bounded length.
    reference: canonical; trusted.
    ask: imports what decides formulas.

  Raises:
    UntamedError: the answer is too dear to compute, or its braces do not match.
  """
  return Matcher(ask).same(answer, reference)
