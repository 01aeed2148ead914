"""Verifiers that ask the scorers of reasoning-gym.

Only worker processes import the library: its scorers are outside code, which
may raise or hang.
"""

from collections.abc import Mapping
from typing import Any

from dppo_jax import reasoning_tasks
from dppo_jax.rewards.verdicts import PARTIAL, RIGHT, WRONG, Verdict

NAMES = ('reasoning_gym', 'reasoning_gym_partial')  # Keys of VERIFIERS.


def reasoning_gym(answer: str, example: Mapping[str, Any]) -> Verdict:
  """Right if the reasoning-gym task's own scorer pays the answer in full."""
  return RIGHT if reasoning_tasks.score(answer, example) >= 1.0 else WRONG


def reasoning_gym_partial(answer: str, example: Mapping[str, Any]) -> Verdict:
  """Score of the reasoning-gym task's own scorer, partial credit included.

  Several tasks pay 0.01 to 0.05 for any text, and those that compare texts pay
  a share for an answer that contains the right one.
  """
  score = reasoning_tasks.score(answer, example)
  if score >= 1.0:
    return RIGHT
  return Verdict(score, PARTIAL.reason) if score > 0.0 else WRONG
