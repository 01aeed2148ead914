"""A guessing game: find a number; each wrong guess is told which way to go."""

from collections.abc import Mapping
import re
from typing import Any

from dppo_jax.rewards.environments.replies import Reply, end
from dppo_jax.rewards.verdicts import MALFORMED, RIGHT

HIGHER, LOWER = 'higher', 'lower'
_NUMBER = re.compile(r'-?[0-9]{1,9}', re.ASCII)


def guessing(
  message: str, state: Any, example: Mapping[str, Any], seed: int
) -> Reply:
  """'higher' or 'lower' than the guess; reward 1 for the number itself.

  Args:
    message: a whole number and nothing else; anything else loses.
    state: not used: what to find is in the example.
    example: its 'answer' is the number.
    seed: not used.
  """
  del state, seed
  text = message.strip()
  if not _NUMBER.fullmatch(text):
    return end(*MALFORMED)
  guess, wanted = int(text), int(example['answer'])
  if guess == wanted:
    return end(*RIGHT)
  return Reply(HIGHER if guess < wanted else LOWER, None, None, '')
