r"""Splits an answer at its top level: lists, brackets, relations, ±.

Every function is one pass over a bounded text.
"""

import re
from typing import NamedTuple

MAX_PARTS = 32  # Of a list.

_TOKEN = re.compile(
  r'\\text\{\s*,?\s*(?P<textual>and|or)\s*,?\s*\}|\\(?:[A-Za-z]+|.)'
  r'|(?<![A-Za-z])(?P<word>and|or)(?![A-Za-z])|.',
  re.DOTALL,
)
_OPENING = frozenset(('(', '[', '{', '\\{', '\\langle'))
_CLOSING = frozenset((')', ']', '}', '\\}', '\\rangle'))
_SIGNS = {
  '=': '=',
  '<': '<',
  '>': '>',
  '\\le': '<=',
  '\\ge': '>=',
  '\\ne': '!=',
  '\\in': 'in',
  '\\approx': '~',
}
COMPARED = frozenset(('=', '<', '>', '<=', '>=', '!='))
# Sign of a relation after its sides are swapped.
FLIPPED = {'<': '>', '>': '<', '<=': '>=', '>=': '<='}


class Group(NamedTuple):
  """Answer inside one pair of brackets.

  Attributes:
    opening: '(', '[' or '{'.
    closing: ')', ']' or '}'.
    inner: text between them.
  """

  opening: str
  closing: str
  inner: str


class Relation(NamedTuple):
  """A chain of sides: `a < b = c`.

  Attributes:
    sides: at least two.
    signs: one fewer, each one of `=`, `<`, `>`, `<=`, `>=`, `!=`, in and ~.
  """

  sides: tuple[str, ...]
  signs: tuple[str, ...]


def _tokens(text: str) -> list[tuple[str, int, int, int]]:
  """Tokens with start, end and the depth of the brackets around them."""
  found, depth = [], 0
  for token in _TOKEN.finditer(text):
    name = token['textual'] or token['word'] or token[0]
    if name in _CLOSING:
      depth -= 1
    found.append((name, token.start(), token.end(), depth))
    if name in _OPENING:
      depth += 1
  return found


def _split_at(text: str, spans: list[tuple[int, int]]) -> list[str]:
  starts = [0, *(end for _, end in spans)]
  ends = [*(start for start, _ in spans), len(text)]
  return [text[a:b].strip() for a, b in zip(starts, ends, strict=True)]


def split(text: str, words: tuple[str, ...], *, spaced: bool) -> list[str]:
  """Items of a list.

  >>> split('1, 2 and (3,4)', (',', 'and'), spaced=False)
  ['1', '2', '(3,4)']

  Args:
    text: canonical.
    words: separators: ',', ';', 'and', 'or', a command.
    spaced: whether a comma separates only if followed by space.

  Returns:
    Non-empty items.
  """
  spans = [
    (start, end)
    for name, start, end, depth in _tokens(text)
    if depth == 0
    and name in words
    and (name != ',' or not spaced or text[end : end + 1].isspace())
  ]
  return [piece for piece in _split_at(text, spans) if piece]


def read_group(text: str) -> Group | None:
  """Brackets around all of a text; None if there are none."""
  tokens = _tokens(text)
  if len(tokens) < 2 or tokens[0][0] not in _OPENING - {'{'}:
    return None
  if tokens[-1][0] not in _CLOSING or tokens[-1][3] != 0:
    return None
  if any(depth == 0 for _, _, _, depth in tokens[1:-1]):
    return None
  marks = {'\\{': '{', '\\}': '}', '\\langle': '(', '\\rangle': ')'}
  opening, closing = tokens[0][0], tokens[-1][0]
  return Group(
    marks.get(opening, opening),
    marks.get(closing, closing),
    text[tokens[0][2] : tokens[-1][1]].strip(),
  )


def read_relation(text: str) -> Relation | None:
  """Chain of sides at the top level; None if there is one side only."""
  tokens = _tokens(text)
  found = [t for t in tokens if t[3] == 0 and t[0] in _SIGNS]
  if not found or any(depth < 0 for _, _, _, depth in tokens):
    return None
  sides = _split_at(text, [(start, end) for _, start, end, _ in found])
  if not all(sides[1:]):
    return None
  return Relation(tuple(sides), tuple(_SIGNS[name] for name, *_ in found))


def both_signs(text: str) -> list[str]:
  r"""Both readings of ±: `2 \pm x` -> `2 + x` and `2 - x`; else the text only.

  `\mp` has the opposite sign.
  """
  marks = len(re.findall(r'\\(?:pm|mp)(?![A-Za-z])', text))
  if not marks or marks > 2:
    return [text]
  plus = re.sub(r'\\pm(?![A-Za-z])', '+', text)
  minus = re.sub(r'\\pm(?![A-Za-z])', '-', text)
  return [
    re.sub(r'\\mp(?![A-Za-z])', '-', plus),
    re.sub(r'\\mp(?![A-Za-z])', '+', minus),
  ]
