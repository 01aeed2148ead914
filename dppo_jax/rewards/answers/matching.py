r"""Equivalence of an answer and its reference.

Answers are split: lists into items, sets into intervals, relations into sides.
Items are compared exactly where possible (`forms`); only formulas go to sympy,
and only if both sides have the same variables.
"""

from collections.abc import Callable
from typing import NamedTuple

from dppo_jax.rewards.answers import (
  cost,
  forms,
  parts,
  quantities,
  readings,
  solution_sets,
)
from dppo_jax.rewards.answers.parts import Relation
from dppo_jax.rewards.answers.spelling import squeeze

MAX_COMPARISONS = 64  # By sympy, per answer.
_MAX_DEPTH = 3  # Of lists within lists.


class IntractableError(ValueError):
  """Answer that is too expensive to evaluate, or malformed."""


class FormulaComparisons(NamedTuple):
  """Functions of `equivalence`, which only workers may import."""

  equivalent: Callable[[str, str], bool]
  same_relation: Callable[[tuple[str, str], tuple[str, str], bool], bool]


class Matcher:
  """Compares the parts of one answer with those of its reference."""

  def __init__(self, load: Callable[[], FormulaComparisons]):
    """Sets up the comparison of one answer.

    Args:
      load: imports the formula comparisons; called only when needed.
    """
    self._load = load
    self._left = MAX_COMPARISONS

  def same(self, answer: str, reference: str, depth: int = 0) -> bool:
    """Whether two canonical texts are equivalent.

    Raises:
      IntractableError: the answer is too expensive to evaluate.
    """
    if squeeze(answer) == squeeze(reference):
      return True
    if depth > _MAX_DEPTH:
      return False
    decided = self._whole(answer, reference)
    if decided is not None:
      return decided
    for expected in readings.readings(reference):
      for given in readings.readings(answer):
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
    """Decision on the full texts, before lists are split; None if undecided."""
    expected = forms.read_choice(reference)
    given = forms.read_choice(answer)
    if expected is not None and readings.PREFIXED.match(reference):
      return self.same(answer, expected[1], _MAX_DEPTH)
    if expected is not None:
      if given is not None:
        return given[0] == expected[0]
      if not expected[1]:
        return self._assigned_choice(answer, expected[0])
      # The value beside the letter is an answer, too.
      return self.same(answer, expected[1], _MAX_DEPTH)
    if forms.same_ratio(answer, reference):
      return True
    if not readings.THOUSANDS.fullmatch(reference):
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
    for read, other in (
      (readings.assignments, readings.coordinates),
      (readings.coordinates, readings.assignments),
    ):
      given, wanted = read(answer), other(reference)
      if given and wanted:
        return len(given) == len(wanted) and all(map(self._end, given, wanted))
    return None

  def _assigned_choice(self, answer: str, letter: str) -> bool:
    relation = parts.read_relation(answer)
    if relation is None or relation.signs != ('=',):
      return False
    name, value = relation.sides
    return bool(readings.NAME.fullmatch(name)) and squeeze(value) == letter

  def _end(self, answer: str, reference: str) -> bool:
    return self._item(answer, reference, _MAX_DEPTH)

  def _multiset(
    self, answer: list[str], reference: list[str], depth: int
  ) -> bool:
    """Whether two lists are equal as multisets."""
    if len(reference) > parts.MAX_PARTS:
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
    """Whether two list items are equivalent."""
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
    first, second = (parts.read_group(t) for t in (answer, reference))
    if first is not None and second is not None and ',' in reference:
      return first[:2] == second[:2] and self._ordered(
        first.inner, second.inner, depth
      )
    given = parts.read_relation(answer)
    expected = parts.read_relation(reference)
    if given is not None or expected is not None:
      return self._relations(answer, given, reference, expected, depth)
    return self._formula(answer, reference)

  def _ordered(self, answer: str, reference: str, depth: int) -> bool:
    """Whether two tuples are equivalent, item by item."""
    first = parts.split(answer, (',', ';'), spaced=False)
    second = parts.split(reference, (',', ';'), spaced=False)
    return len(first) == len(second) <= parts.MAX_PARTS and all(
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
    """Whether two relations are equivalent; `x = 5` matches 5 by its value."""
    if given is None or expected is None:
      if expected is not None:
        value = readings.assigned(expected)
        return value is not None and self._item(answer, value, depth)
      return given is not None and self._chain(given, reference, depth)
    if len(given.sides) != len(expected.sides):
      value = readings.assigned(expected)
      named = readings.identical(given.sides[0], expected.sides[0])
      return bool(value) and named and self._chain(given, value or '', depth)
    flipped = Relation(
      given.sides[::-1],
      tuple(parts.FLIPPED.get(sign, sign) for sign in given.signs[::-1]),
    )
    free = readings.letters(answer)
    if free != readings.letters(reference):
      return False
    for way in (given, flipped):
      if way.signs != expected.signs:
        continue
      if all(map(readings.identical, way.sides, expected.sides)):
        return True
      if free and all(
        self._side(a, r) for a, r in zip(way.sides, expected.sides, strict=True)
      ):
        return True
    if not free or len(given.sides) != 2 or '' in given.sides:
      return False
    for way in (given, flipped):
      if way.signs == expected.signs and way.signs[0] in parts.COMPARED:
        self._admit(answer)
        ordered = way.signs[0][0] in '<>'
        first, second = way.sides, expected.sides
        return self._load().same_relation(
          (first[0], first[1]), (second[0], second[1]), ordered
        )
    return False

  def _side(self, answer: str, reference: str) -> bool:
    if squeeze(answer) == squeeze(reference):
      return True
    exact = forms.same_form(forms.read_form(answer), forms.read_form(reference))
    return self._formula(answer, reference) if exact is None else exact

  def _chain(self, given: Relation, reference: str, depth: int) -> bool:
    """Whether all values of a chain `x = a = b` equal the reference."""
    if set(given.signs) == {'~'} and len(given.sides) == 2:
      value, rounded = given.sides
      if readings.NAME.fullmatch(value):
        return self._item(rounded, reference, depth)
      return readings.rounds(value, rounded) and self._item(
        value, reference, depth
      )
    if set(given.signs) != {'='} or len(given.sides) > 4:
      return False
    sides = list(given.sides)
    if len(sides) == 2 and readings.is_name(sides[1], sides[0]):
      sides = sides[:1]
    elif readings.is_name(sides[0], sides[1]):
      sides = sides[1:]
    return all(self._item(side, reference, depth) for side in sides)

  def _formula(self, answer: str, reference: str) -> bool:
    """Whether two formulas are equal."""
    self._admit(answer)
    if readings.letter_unit(answer, reference):
      return True
    answer, reference = (
      readings.without_unit(answer),
      readings.without_unit(reference),
    )
    number = quantities.read_canonical(answer)
    expected = quantities.read_canonical(reference)
    if number is not None and expected is not None:
      return quantities.same_quantity(number, expected)
    if readings.letters(answer) != readings.letters(reference):
      return False
    if not answer.isascii() or readings.TWO_NUMBERS.search(answer):
      return False
    if '\\prime' in answer + reference:  # Minutes of arc, or a derivative.
      return False
    if any(c in answer and c not in reference for c in cost.NONTERMINATING):
      return False
    return self._load().equivalent(answer, reference)

  def _admit(self, answer: str) -> None:
    if not cost.is_tractable(answer):
      raise IntractableError(answer[:40])
    self._left -= 1
    if self._left < 0:
      raise IntractableError(f'more than {MAX_COMPARISONS} formulas')


def same_answer(
  answer: str, reference: str, load: Callable[[], FormulaComparisons]
) -> bool:
  """Whether an answer is equivalent to its reference.

  Args:
    answer: canonical, see `spelling`; untrusted, of bounded length.
    reference: canonical; trusted.
    load: imports the formula comparisons; called only when needed.

  Raises:
    IntractableError: the answer is too expensive to evaluate, or its brackets
      do not match.
  """
  return bool(answer and reference) and Matcher(load).same(answer, reference)
