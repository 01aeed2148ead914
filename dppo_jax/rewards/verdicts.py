"""Verdicts on completions: a reward, and the reason for it."""

import collections
from collections.abc import Mapping, Sequence
import math
import numbers
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # It imports JAX, which a verifier process must not.
  from dppo_jax.base import Verifier

MAX_REASON_LENGTH = 200  # Characters; reasons are logged and counted.


class Verdict(NamedTuple):
  """A verifier's result for one completion.

  Attributes:
    reward: finite; 1.0 is right and 0.0 wrong for every built-in verifier.
    reason: a key of `REASONS`, 'error: …', or a user function's own words.
  """

  reward: float
  reason: str


# How truncated completions are treated. zero: built-in verifiers give reward 0;
# user functions receive the flag. score: verified by their text, as if they had
# ended. mask: like score, and excluded from the loss and from its denominators
# (tokens and sequences); their rewards still count in the group mean.
TRUNCATED_POLICIES = ('zero', 'score', 'mask')


def is_right(verdict: Verdict) -> bool:
  """Whether the answer is right: reward above 0, for the first term's verdict.

  Not for the sum of several terms, which includes formats and penalties.
  """
  return verdict.reward > 0


# Every built-in reason, and its meaning.
REASONS = {
  'right': 'correct',
  'wrong': 'an answer that is not the reference',
  'empty': 'an empty completion',
  'truncated': 'reached the length limit',
  'partial': 'partial credit of reasoning_gym_partial',
  'unjudged': 'left to the reward model',
  'no_answer': 'no answer found by rewards.extraction',
  'too_long': 'an answer above the length that is verified',
  'malformed': 'not in the required format',
  'wrong_numbers': 'countdown: numbers other than those given',
  'out_of_turns': 'a conversation without a reward at environment.max_turns',
  'timeout': 'exceeded rewards.time_limit_s of CPU time',
  'memory': 'exceeded rewards.memory_limit_mb',
  'crashed': 'the worker process ended while verifying it',
}
RIGHT = Verdict(1.0, 'right')
WRONG = Verdict(0.0, 'wrong')
EMPTY = Verdict(0.0, 'empty')
TRUNCATED = Verdict(0.0, 'truncated')
PARTIAL = Verdict(0.0, 'partial')  # With a reward of its own.
UNJUDGED = Verdict(0.0, 'unjudged')
NO_ANSWER = Verdict(0.0, 'no_answer')
TOO_LONG = Verdict(0.0, 'too_long')
MALFORMED = Verdict(0.0, 'malformed')
WRONG_NUMBERS = Verdict(0.0, 'wrong_numbers')
OUT_OF_TURNS = Verdict(0.0, 'out_of_turns')
TIMEOUT = Verdict(0.0, 'timeout')
MEMORY = Verdict(0.0, 'memory')
CRASHED = Verdict(0.0, 'crashed')


def error_verdict(message: str) -> Verdict:
  """Verdict with reward 0 and a reason of bounded length."""
  return Verdict(0.0, f'error: {message}'[:MAX_REASON_LENGTH])


def verify_safely(
  verifier: 'Verifier',
  completion: str,
  example: Mapping[str, Any],
  truncated: bool,
) -> Verdict:
  """Verdict of a verifier, whatever it raises or returns.

  Args:
    verifier: any callable of the three arguments below.
    completion: text without the end token.
    example: with 'answer'.
    truncated: whether the completion hit the length limit.

  Returns:
    Its verdict, with a finite reward and a bounded reason; reward 0.0 and
    'memory' on a MemoryError, 'error: …' on any other exception or malformed
    result. A verifier that hangs or exits is not handled here.
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
  """Counts of verifier failures: 'errors', 'timeouts' and 'crashes'.

  Running out of memory counts as a crash.
  """
  reasons = [verdict.reason for verdict in verdicts]
  return {
    'errors': sum(reason.startswith('error: ') for reason in reasons),
    'timeouts': reasons.count('timeout'),
    'crashes': reasons.count('crashed') + reasons.count('memory'),
  }


def failure_share(verdicts: Sequence[Verdict]) -> float:
  """Share of completions that verifiers failed on, in [0, 1].

  Args:
    verdicts: B, at least one.
  """
  return sum(failure_counts(verdicts).values()) / len(verdicts)


def common_failure(verdicts: Sequence[Verdict]) -> str:
  """The reason that verifiers failed with most often; '' if none failed."""
  failed = [v.reason for v in verdicts if any(failure_counts([v]).values())]
  return collections.Counter(failed).most_common(1)[0][0] if failed else ''


def describe_failure(share: float, reason: str) -> str:
  """Message about verifiers that failed.

  Args:
    share: of completions, of `failure_share`.
    reason: of `common_failure`; '' if it is not known here.
  """
  means = REASONS.get(reason)
  why = f'{reason} ({means})' if means else reason
  most = f', most often with: {why}' if reason else ''
  return (
    f'rewards.verifier: it failed on {share:.0%} of the completions{most}. A'
    ' failed verdict counts as reward 0. Look at its signature, (completion,'
    ' example, truncated) -> (reward, reason), at the columns it reads, and at'
    ' rewards.time_limit_s and rewards.memory_limit_mb.'
  )


def reason_shares(verdicts: Sequence[Verdict]) -> dict[str, float]:
  """Fraction of verdicts per key of `REASONS`, 'error' and 'other'; sums to 1.

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
