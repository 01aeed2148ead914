"""Verdicts on completions: a reward, and the reason for it."""

from collections.abc import Mapping, Sequence
import math
import numbers
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # It imports JAX, which a verifier process must not.
  from dppo_jax.base import Verifier

MAX_REASON_LENGTH = 200  # Characters; reasons are logged and counted.


class Verdict(NamedTuple):
  """Verdict of a verifier on a completion.

  Attributes:
    reward: finite; 1.0 is right and 0.0 wrong for every verifier here.
    reason: a key of `REASONS`, 'error: …', or a few words of the user's.
  """

  reward: float
  reason: str


# What becomes of a completion that the length limit cut. zero: verifiers of
# this package give it 0 whatever it says, and those of the user are told.
# score: it is judged by its text, as if it had ended. mask: as score, and it is
# left out of the loss and of its denominators, tokens and sequences, while its
# reward stays in the mean of its group.
TRUNCATED_POLICIES = ('zero', 'score', 'mask')


def is_right(verdict: Verdict) -> bool:
  """Whether the answer is right: the verdict of the first term, above 0.

  Not of the sum of several, where a format or a penalty counts, too.
  """
  return verdict.reward > 0


# Every reason of this package, and what it says.
REASONS = {
  'right': 'as asked',
  'wrong': 'an answer, but another one',
  'empty': 'no words at all',
  'truncated': 'cut by the length limit',
  'unjudged': 'left to the reward model',
  'no_answer': 'nothing where rewards.extraction looks',
  'too_long': 'an answer longer than any answer is',
  'malformed': 'not of the form asked for',
  'wrong_numbers': 'countdown: other numbers than those given',
  'timeout': 'took more CPU time than rewards.time_limit_s',
  'memory': 'took more than rewards.memory_limit_mb',
  'crashed': 'ended the process that verified it',
}
RIGHT = Verdict(1.0, 'right')
WRONG = Verdict(0.0, 'wrong')
EMPTY = Verdict(0.0, 'empty')
TRUNCATED = Verdict(0.0, 'truncated')
UNJUDGED = Verdict(0.0, 'unjudged')
NO_ANSWER = Verdict(0.0, 'no_answer')
TOO_LONG = Verdict(0.0, 'too_long')
MALFORMED = Verdict(0.0, 'malformed')
WRONG_NUMBERS = Verdict(0.0, 'wrong_numbers')
TIMEOUT = Verdict(0.0, 'timeout')
MEMORY = Verdict(0.0, 'memory')
CRASHED = Verdict(0.0, 'crashed')


def error_verdict(message: str) -> Verdict:
  """Reward 0 with a reason of bounded length."""
  return Verdict(0.0, f'error: {message}'[:MAX_REASON_LENGTH])


def verify_safely(
  verifier: 'Verifier',
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
    'memory' where it wanted too much of that, 'error: …' where it raises
    otherwise or returns anything else.
  """
  try:
    reward, reason = verifier(completion, example, truncated)
    if not isinstance(reward, numbers.Real):
      return error_verdict(f'reward of type {type(reward).__name__}')
    reward = float(reward)
    if not math.isfinite(reward):
      return error_verdict(f'reward {reward} is not finite')
    return Verdict(reward, str(reason)[:MAX_REASON_LENGTH])
  except MemoryError:
    return MEMORY
  except Exception as error:
    return error_verdict(f'{type(error).__name__}: {error}')


def failure_counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
  """Counts what verifiers failed to judge: errors, timeouts and crashes.

  A verifier that ran out of memory counts as a crash.
  """
  reasons = [verdict.reason for verdict in verdicts]
  return {
    'errors': sum(reason.startswith('error: ') for reason in reasons),
    'timeouts': reasons.count('timeout'),
    'crashes': reasons.count('crashed') + reasons.count('memory'),
  }


def reason_shares(verdicts: Sequence[Verdict]) -> dict[str, float]:
  """Share of each key of `REASONS`, of 'error' and of 'other', summing to 1.

  Args:
    verdicts: B, at least one.
  """
  counts = dict.fromkeys([*REASONS, 'error', 'other'], 0)
  for verdict in verdicts:
    if verdict.reason in REASONS:
      counts[verdict.reason] += 1
    else:
      error = verdict.reason.startswith('error: ')
      counts['error' if error else 'other'] += 1
  return {name: count / len(verdicts) for name, count in counts.items()}
