"""Verifiers: a completion and its example to a reward and a reason.

Worker processes import this module, so it needs the standard library only.
"""

from collections.abc import Callable, Mapping
import decimal
import math
import numbers
import re
from typing import Any, NamedTuple

MAX_REASON_LENGTH = 200  # Characters; reasons are logged and counted.
MAX_NUMBER_LENGTH = 64  # Characters of a number worth reading.


class Verdict(NamedTuple):
  """What a verifier says of a completion.

  Attributes:
    reward: finite; 1.0 is right and 0.0 wrong for every verifier here.
    reason: a few words that runs count: 'right', 'wrong', 'empty',
      'truncated'; or 'timeout', 'crashed', 'error: …' when it failed.
  """

  reward: float
  reason: str


Verifier = Callable[[str, Mapping[str, Any], bool], Verdict]

RIGHT = Verdict(1.0, 'right')
WRONG = Verdict(0.0, 'wrong')
EMPTY = Verdict(0.0, 'empty')
TRUNCATED = Verdict(0.0, 'truncated')


def _incomplete(completion: str, truncated: bool) -> Verdict | None:
  """The verdict on what has no end or no words; None where it has both."""
  if truncated:
    return TRUNCATED
  return None if completion.strip() else EMPTY


def exact_match(
  completion: str, example: Mapping[str, Any], truncated: bool
) -> Verdict:
  """Right where the completion is the answer, character by character."""
  right = RIGHT if completion == example['answer'] else WRONG
  return _incomplete(completion, truncated) or right


def last_word(
  completion: str, example: Mapping[str, Any], truncated: bool
) -> Verdict:
  """Right where the last word is the answer, whatever comes before it."""
  right = completion.split()[-1:] == [example['answer']]
  return _incomplete(completion, truncated) or (RIGHT if right else WRONG)


def alias_sort(
  completion: str, example: Mapping[str, Any], truncated: bool
) -> Verdict:
  """Right where the digits are those of the answer, however spelled.

  A word 'digit.rank' is one of the spellings of its digit.
  """

  def digits(text: str) -> list[str]:
    return [
      word[0] if re.fullmatch(r'[0-9]\.[0-9]+', word) else word
      for word in text.split()
    ]

  right = digits(completion) == digits(example['answer'])
  return _incomplete(completion, truncated) or (RIGHT if right else WRONG)


def _number(text: str) -> decimal.Decimal | None:
  """Reads words as one number, or says None: '0 5 7 9' is 579."""
  joined = ''.join(text.split())
  if len(joined) > MAX_NUMBER_LENGTH:
    return None
  if not re.fullmatch(r'[+-]?[0-9]+(\.[0-9]+)?', joined):
    return None
  return decimal.Decimal(joined)


def numeric(
  completion: str, example: Mapping[str, Any], truncated: bool
) -> Verdict:
  """Right where completion and answer are the same decimal number.

  Spaces and leading zeros are ignored; 'unreadable' where the completion is
  not a number.
  """
  number = _number(completion)
  if incomplete := _incomplete(completion, truncated):
    return incomplete
  if number is None:
    return Verdict(0.0, 'unreadable')
  return RIGHT if number == _number(example['answer']) else WRONG


VERIFIERS: dict[str, Verifier] = {
  'exact_match': exact_match,
  'last_word': last_word,
  'alias_sort': alias_sort,
  'numeric': numeric,
}


def error_verdict(message: str) -> Verdict:
  """Reward 0 with a reason of bounded length."""
  return Verdict(0.0, f'error: {message}'[:MAX_REASON_LENGTH])


def verify_safely(
  verifier: Verifier,
  completion: str,
  example: Mapping[str, Any],
  truncated: bool,
) -> Verdict:
  """Calls a verifier; whatever it does but hang or exit becomes a verdict.

  Args:
    verifier: any callable of the three arguments below.
    completion: text without the end token.
    example: the data row, with 'answer'.
    truncated: whether the length limit cut the completion.

  Returns:
    Its verdict with a finite reward and a bounded reason; reward 0.0 and
    'error: …' where it raises, or returns anything else.
  """
  try:
    reward, reason = verifier(completion, example, truncated)
    if not isinstance(reward, numbers.Real):
      return error_verdict(f'reward of type {type(reward).__name__}')
    reward = float(reward)
    if not math.isfinite(reward):
      return error_verdict(f'reward {reward} is not finite')
    return Verdict(reward, str(reason)[:MAX_REASON_LENGTH])
  except Exception as error:
    return error_verdict(f'{type(error).__name__}: {error}')


def failure_counts(verdicts: list[Verdict]) -> dict[str, int]:
  """Counts what verifiers failed to judge: errors, timeouts and crashes."""
  reasons = [verdict.reason for verdict in verdicts]
  return {
    'errors': sum(reason.startswith('error: ') for reason in reasons),
    'timeouts': reasons.count('timeout'),
    'crashes': reasons.count('crashed'),
  }
