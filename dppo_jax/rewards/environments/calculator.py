"""A calculator as a tool, for word problems with a number for an answer."""

from collections.abc import Mapping
import decimal
from fractions import Fraction
import re
from typing import Any

from dppo_jax.rewards import countdown, verifiers
from dppo_jax.rewards.environments.replies import Reply, end
from dppo_jax.rewards.environments.tool_calls import find_call, respond

_MAX_DIGITS = 30  # Of a value that is shown.
_DECIMAL = re.compile(r'([0-9]{1,12})\.([0-9]{1,9})', re.ASCII)
_ANSWERS = ('boxed', 'hashes', 'answer_tag', 'answer_line', 'last_number')
_judge = verifiers.make_verifier(verifiers.VERIFIERS['numeric'], _ANSWERS)


def calculator(
  message: str, state: Any, example: Mapping[str, Any], seed: int
) -> Reply:
  """The value of a tool call's expression; reward 1 for the right answer.

  A message with a tool call, `calculator` with the argument `expression`, is
  told its value or what is wrong with it; any other is the answer, judged as
  by `numeric`: in a box, after hashes, or the last number.

  Args:
    message: with one call or none.
    state: calls so far.
    example: with 'answer'.
    seed: not used.
  """
  del seed
  count = (state or 0) + 1
  try:
    call = find_call(message)
    if call is None:
      return end(*_judge(message, example, False))
    if call.name != 'calculator':
      raise ValueError(f'no tool {call.name[:40]!r}; there is "calculator"')
    expression = call.arguments.get('expression')
    if not isinstance(expression, str):
      raise ValueError('the argument "expression" is missing, a text')
    said = show(evaluate(expression))
  except ValueError as error:
    return Reply(respond(f'Error: {error}'), count, None, '', malformed=True)
  return Reply(respond(said), count, None, '')


def evaluate(expression: str) -> Fraction:
  """Exact value of an expression of + - * / and parentheses.

  >>> evaluate('1,200 * 0.25')
  Fraction(300, 1)

  Raises:
    ValueError: no expression, too long, or a division by zero.
  """
  if len(expression) > countdown.MAX_LENGTH:
    raise ValueError(f'more than {countdown.MAX_LENGTH} characters')
  plain = re.sub(r'(?<=[0-9]),(?=[0-9]{3}(?![0-9]))', '', expression)
  plain = _DECIMAL.sub(lambda m: f'({m[1]}{m[2]}/1{"0" * len(m[2])})', plain)
  for spelling, sign in (('×', '*'), ('÷', '/'), ('−', '-')):
    plain = plain.replace(spelling, sign)
  try:
    return countdown.evaluate(plain)[0]
  except ValueError:
    raise ValueError(
      f'cannot evaluate {expression[:80]!r}; numbers, + - * / and parentheses'
    ) from None


def show(value: Fraction) -> str:
  """A number as text: a whole one exactly, any other to 12 digits.

  >>> show(Fraction(5, 4)), show(Fraction(1, 3))
  ('1.25', '0.333333333333')

  Raises:
    ValueError: it is too large.
  """
  if abs(value) >= 10**_MAX_DIGITS:
    raise ValueError(f'the value has more than {_MAX_DIGITS} digits')
  if value.denominator == 1:
    return str(value.numerator)
  with decimal.localcontext(prec=12):
    found = decimal.Decimal(value.numerator) / decimal.Decimal(
      value.denominator
    )
  return f'{found.normalize():f}' if abs(found) > 1e-9 else f'{found:.6e}'
