"""Countdown: reach a target with the given numbers and + - * /.

An expression is tokenized and read by precedence climbing, over exact
fractions. There is no power and no function, so values stay as short as the
text; its length and its nesting are bounded.
"""

import collections
from collections.abc import Iterable, Mapping
from fractions import Fraction
import re
from typing import Any

from dppo_jax.rewards.verdicts import (
  MALFORMED,
  RIGHT,
  TOO_LONG,
  WRONG,
  WRONG_NUMBERS,
  Verdict,
)

NAMES = ('countdown', 'countdown_subset')  # Keys of VERIFIERS.
MAX_LENGTH = 512  # Characters of an expression.
MAX_DEPTH = 32  # Of its parentheses.
_MAX_DIGITS = 12  # Of one number.

_TOKEN = re.compile(r'[ \t\n]*(?:([0-9]+)|([-+*/()]))', re.ASCII)
_SPELLINGS = {
  '×': '*',
  '·': '*',
  '÷': '/',
  '−': '-',
  '\\times': '*',
  '\\cdot': '*',
  '\\div': '/',
  '\\left': '',
  '\\right': '',
  '$': '',
}
_PRECEDENCE = {'+': 1, '-': 1, '*': 2, '/': 2}


class _Malformed(ValueError):
  """The text is no expression."""


def _tokenize(text: str) -> list[str]:
  tokens, position = [], 0
  text = text.strip()
  while position < len(text):
    found = _TOKEN.match(text, position)
    if found is None or len(found[1] or '') > _MAX_DIGITS:
      raise _Malformed(text[position : position + 8])
    tokens.append(found[1] or found[2])
    position = found.end()
  return tokens


class _Reader:
  """Reads tokens once, from the left.

  Attributes:
    numbers: integers read so far, in order.
  """

  def __init__(self, tokens: Iterable[str]):
    self._rest = collections.deque(tokens)
    self.numbers: list[int] = []

  def read(self) -> Fraction:
    value = self._sum(1, 0)
    if self._rest:
      raise _Malformed(self._rest[0])
    return value

  def _sum(self, least: int, depth: int) -> Fraction:
    """A chain of operators of at least that precedence, left to right."""
    value = self._operand(depth)
    while self._rest and _PRECEDENCE.get(self._rest[0], 0) >= least:
      operator = self._rest.popleft()
      right = self._sum(_PRECEDENCE[operator] + 1, depth)
      if operator == '+':
        value += right
      elif operator == '-':
        value -= right
      elif operator == '*':
        value *= right
      elif right:
        value /= right
      else:
        raise _Malformed('a division by zero')
    return value

  def _operand(self, depth: int) -> Fraction:
    sign = 1
    if self._rest and self._rest[0] == '-':
      self._rest.popleft()
      sign = -1
    token = self._rest.popleft() if self._rest else ''
    if token.isdigit():
      self.numbers.append(int(token))
      return Fraction(sign * int(token))
    if token != '(' or depth == MAX_DEPTH:
      raise _Malformed(token)
    value = self._sum(1, depth + 1)
    if not self._rest or self._rest.popleft() != ')':
      raise _Malformed('a parenthesis is not closed')
    return sign * value


def evaluate(text: str) -> tuple[Fraction, list[int]]:
  """Value of an expression of + - * / and parentheses, and its numbers.

  >>> evaluate('(3 + 5) / 6')
  (Fraction(4, 3), [3, 5, 6])

  Raises:
    ValueError: no expression, a division by zero, or nested beyond
      `MAX_DEPTH`.
  """
  reader = _Reader(_tokenize(text))
  return reader.read(), reader.numbers


def _numbers(example: Mapping[str, Any]) -> Any:
  """Published rows call them 'nums'."""
  return example['numbers'] if 'numbers' in example else example['nums']


def find_problem(example: Mapping[str, Any]) -> str | None:
  """Reason why no completion can be right for an example; None if one can.

  >>> find_problem({'target': 24, 'nums': [4, 6]})
  >>> find_problem({'nums': [4, 6]})
  "reads the field 'target'"
  """
  if 'target' not in example:
    return "reads the field 'target'"
  try:
    numbers = _numbers(example)
  except KeyError:
    return "reads the field 'numbers', or 'nums'"
  try:
    Fraction(str(example['target']))
    whole = [int(number) for number in numbers]
  except (TypeError, ValueError, ZeroDivisionError):
    whole = []
  if not whole:
    return "reads a number in 'target' and a list of numbers in 'numbers'"
  return None


def _judge(answer: str, example: Mapping[str, Any], every: bool) -> Verdict:
  if len(answer) > MAX_LENGTH:
    return TOO_LONG
  for spelling, plain in _SPELLINGS.items():
    answer = answer.replace(spelling, plain)
  expression, equals, stated = answer.partition('=')
  target = Fraction(str(example['target']))
  given = collections.Counter(int(number) for number in _numbers(example))
  try:
    value, numbers = evaluate(expression)
    if equals and evaluate(stated)[0] != value:
      return WRONG  # The stated value is not that of the expression.
  except _Malformed:
    return MALFORMED
  used = collections.Counter(numbers)
  if used != given if every else not used <= given:
    return WRONG_NUMBERS
  return RIGHT if value == target else WRONG


def countdown(answer: str, example: Mapping[str, Any]) -> Verdict:
  """Right if it reaches 'target' using each of 'numbers' exactly once.

  Both are fields of the example; 'nums' is an accepted name, too. The answer
  is an expression, or an equation with its value on the right.
  """
  return _judge(answer, example, True)


def countdown_subset(answer: str, example: Mapping[str, Any]) -> Verdict:
  """Like `countdown`, with each number used at most once."""
  return _judge(answer, example, False)
