"""Verifiers as environments of one turn: the message is judged, and that is it.

Worker processes import this module, so it needs the standard library only.
"""

from collections.abc import Mapping
from typing import Any

from dppo_jax.rewards.environments.replies import Reply, end
from dppo_jax.rewards.verifiers import VERIFIERS, make_verifier

# In the library's own prompts the answer stands between tags.
_EXTRACTION = ('answer_tag', 'whole')


def reasoning_gym(
  message: str, state: Any, example: Mapping[str, Any], seed: int
) -> Reply:
  """None: reward 1 where a reasoning-gym task's scorer pays in full."""
  del state, seed
  return judge('reasoning_gym', message, example)


def reasoning_gym_partial(
  message: str, state: Any, example: Mapping[str, Any], seed: int
) -> Reply:
  """None: the score by a reasoning-gym task's scorer."""
  del state, seed
  return judge('reasoning_gym_partial', message, example)


def judge(verifier: str, message: str, example: Mapping[str, Any]) -> Reply:
  """Reply that ends the conversation with a verifier's verdict.

  Args:
    verifier: a key of `VERIFIERS`.
    message: outside its thoughts, the answer is what the last `<answer>` tag
      holds, or else all of it.
    example: the data row.
  """
  verify = make_verifier(VERIFIERS[verifier], _EXTRACTION)
  return end(*verify(message, example, False))
