r"""Sets of real numbers: `x > 3`, `(3, \infty)` and `\{x \mid x > 3\}` alike.

A set has an optional variable and is a union of open or closed intervals.
Endpoints stay texts; the caller compares them.
"""

from collections.abc import Callable
import itertools
import re
from typing import NamedTuple

from dppo_jax.rewards.answers import parts, quantities
from dppo_jax.rewards.answers.parts import Relation

_INFINITY, _MINUS_INFINITY = '\\infty', '-\\infty'
_LETTER = re.compile(r'[A-Za-z](?:_\{?\w\}?)?|\\(?:theta|alpha|beta|lambda)')
_REALS = re.compile(r'\\mathbb\{R\}|(?:all )?real numbers?|all reals')
_MARKED = re.compile(
  r'[<>]|\\(?:le|ge|ne|in|mid|cup|setminus|mathbb)(?![A-Za-z])|real'
)


class Interval(NamedTuple):
  """Interval between two endpoints, each included if closed."""

  low: str
  high: str
  closed_low: bool
  closed_high: bool


class SolutionSet(NamedTuple):
  """Union of intervals, and its variable; '' if it has none."""

  letter: str
  intervals: tuple[Interval, ...]


def is_marked(text: str) -> bool:
  """Whether a text has a symbol that only sets and inequalities use."""
  return _MARKED.search(text) is not None


def _end(text: str) -> str:
  """Text of an endpoint, with infinity normalized."""
  plain = text.replace(' ', '').replace('+', '')
  return plain if plain in (_INFINITY, _MINUS_INFINITY) else text.strip()


def _interval(text: str) -> Interval | None:
  group = parts.read_group(text)
  if group is None or group.opening == '{':
    return None
  ends = parts.split(group.inner, (',', ';'), spaced=False)
  if len(ends) != 2:
    return None
  low, high = _end(ends[0]), _end(ends[1])
  return Interval(low, high, group.opening == '[', group.closing == ']')


def _of_chain(relation: Relation) -> SolutionSet | None:
  r"""Set of `x > 3`, `3 \ge x`, `a \le x < b` or `x \ne 3`."""
  sides, signs = relation.sides, relation.signs
  if {sign[0] for sign in signs} == {'>'}:
    sides = sides[::-1]
    signs = tuple(parts.FLIPPED[sign] for sign in signs[::-1])
  if len(sides) == 2 and signs[0] == '!=':
    letter, other = sides if _LETTER.fullmatch(sides[0]) else sides[::-1]
    if not _LETTER.fullmatch(letter) or _LETTER.fullmatch(other):
      return None
    return SolutionSet(letter, _around([other]))
  if not all(sign[0] == '<' for sign in signs):
    return None
  if len(sides) == 2 and all(map(_LETTER.fullmatch, sides)):
    return None  # Two variables: a relation.
  if len(sides) == 2 and _LETTER.fullmatch(sides[0]):
    letter, low, high = sides[0], _MINUS_INFINITY, _end(sides[1])
    closed = (False, signs[0] == '<=')
  elif len(sides) == 2 and _LETTER.fullmatch(sides[1]):
    letter, low, high = sides[1], _end(sides[0]), _INFINITY
    closed = (signs[0] == '<=', False)
  elif len(sides) == 3 and _LETTER.fullmatch(sides[1]):
    letter, low, high = sides[1], _end(sides[0]), _end(sides[2])
    closed = (signs[0] == '<=', signs[1] == '<=')
  else:
    return None
  # Open at infinity, whatever is written: x < \infty is the real line.
  closed = (
    closed[0] and low != _MINUS_INFINITY,
    closed[1] and high != _INFINITY,
  )
  return SolutionSet(letter, (Interval(low, high, *closed),))


def _around(points: list[str]) -> tuple[Interval, ...]:
  """Intervals of the real line without some points, in ascending order."""
  ends = [_MINUS_INFINITY, *points, _INFINITY]
  return tuple(
    Interval(low, high, False, False) for low, high in itertools.pairwise(ends)
  )


def _without(text: str) -> tuple[Interval, ...] | None:
  r"""Intervals of `\mathbb{R} \setminus \{1, 2\}`."""
  group = parts.read_group(text)
  if group is None or group.opening != '{':
    return None
  points = parts.split(group.inner, (',', ';'), spaced=False)
  if len(points) > 1:
    values = [quantities.read_canonical(point) for point in points]
    numbers = [v.value for v in values if v is not None]
    if len(numbers) != len(points) or len(set(numbers)) != len(numbers):
      return None
    order = sorted(range(len(points)), key=numbers.__getitem__)
    points = [points[i] for i in order]
  return _around(points) if points else None


def _union(found: list[SolutionSet | None]) -> SolutionSet | None:
  """Union of sets, if all have the same variable; else None."""
  sets = [one for one in found if one is not None]
  if len(sets) != len(found) or len({one.letter for one in sets}) != 1:
    return None
  intervals = tuple(i for one in sets for i in one.intervals)
  return SolutionSet(sets[0].letter, intervals)


def read_set(text: str, depth: int = 0) -> SolutionSet | None:
  r"""Set described by an interval, an inequality or a condition.

  >>> read_set('x > 3').intervals[0]
  Interval(low='3', high='\\infty', closed_low=False, closed_high=False)

  Args:
    text: canonical.
    depth: number of enclosing sets.

  Returns:
    The set; None if it is no set of real numbers in simple form.
  """
  text = text.strip()
  if depth > 3:
    return None
  pieces = parts.split(text, ('or', '\\cup'), spaced=False)
  if len(pieces) > 1:
    if len(pieces) > parts.MAX_PARTS:
      return None
    # `x < 1 or x > 2`, and `x \in A \cup B`.
    relation = parts.read_relation(pieces[0])
    if relation is None or relation.signs[0] != 'in':
      return _union([read_set(part, depth + 1) for part in pieces])
  if _REALS.fullmatch(text):
    return SolutionSet('', _around([]))
  relation = parts.read_relation(text)
  if relation is not None and relation.signs == ('in',):
    letter, values = relation.sides
    inner = read_set(values, depth + 1)
    if inner is None or inner.letter or not _LETTER.fullmatch(letter):
      return None
    return SolutionSet(letter, inner.intervals)
  if relation is not None:
    return _of_chain(relation)
  if found := re.fullmatch(
    r'\\mathbb\{R\}\s*(?:\\setminus|\\backslash|-)(.*)', text
  ):
    around = _without(found[1].strip())
    return None if around is None else SolutionSet('', around)
  group = parts.read_group(text)
  if group is not None and group.opening == group.closing.replace('}', '{'):
    return _by_condition(group.inner, depth)
  interval = _interval(text)
  return None if interval is None else SolutionSet('', (interval,))


def _by_condition(inner: str, depth: int) -> SolutionSet | None:
  r"""Set of `x \mid x > 7` or `x \in \mathbb{R} : x > 7`, without braces."""
  pieces = parts.split(inner, ('\\mid', '|', ':'), spaced=False)
  if len(pieces) != 2:
    return None
  letter = re.sub(r'\\in\s*\\mathbb\{R\}$', '', pieces[0]).strip()
  found = read_set(pieces[1], depth + 1)
  if found is None or found.letter != letter:
    return None
  return SolutionSet('', found.intervals)


def same_set(
  answer: SolutionSet,
  reference: SolutionSet,
  same_end: Callable[[str, str], bool],
) -> bool:
  """Whether two sets are the same.

  Args:
    answer: one set.
    reference: the other; if both name a variable, it must be the same.
    same_end: whether two endpoints are equal.
  """
  if answer.letter and reference.letter and answer.letter != reference.letter:
    return False
  rest = list(reference.intervals)
  if len(answer.intervals) != len(rest):
    return False

  def equal(first: Interval, second: Interval) -> bool:
    return (
      first[2:] == second[2:]
      and same_end(first.low, second.low)
      and same_end(first.high, second.high)
    )

  for interval in answer.intervals:
    found = next((r for r in rest if equal(interval, r)), None)
    if found is None:
      return False
    rest.remove(found)
  return True
