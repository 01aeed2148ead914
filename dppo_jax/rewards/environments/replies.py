"""Replies of an environment, bounded whatever it returns.

Worker processes import this module, so it needs the standard library only.
"""

from collections.abc import Mapping
import json
import math
import numbers
from typing import TYPE_CHECKING, Any, NamedTuple

from dppo_jax.rewards.verdicts import MAX_REASON_LENGTH, MEMORY, error_verdict

if TYPE_CHECKING:  # It imports JAX, which a worker process must not.
  from dppo_jax.base import Environment

MAX_TEXT_LENGTH = 100_000  # Characters; a pool takes messages of up to 1 MiB.
MAX_STATE_LENGTH = 100_000  # Characters of its JSON.


class Reply(NamedTuple):
  """An environment's reply to a message.

  Attributes:
    text: what the policy reads next; not read where the conversation is over.
    state: JSON value, handed back with the next message.
    reward: finite, of the whole conversation, which it ends; None to go on.
    reason: of the reward, a key of `verdicts.REASONS` or own words.
    cut: whether the text was longer than may be.
    malformed: whether the message was none that the environment reads, such as
      a tool call that does not parse; the text says so.
  """

  text: str
  state: Any
  reward: float | None
  reason: str
  cut: bool = False
  malformed: bool = False


def end(reward: float, reason: str) -> Reply:
  """Reply that ends the conversation."""
  return Reply('', None, reward, reason)


def reply_safely(
  environment: 'Environment',
  message: str,
  state: Any,
  example: Mapping[str, Any],
  seed: int,
) -> Reply:
  """Reply of an environment, whatever it raises or returns.

  Args:
    environment: any callable of the arguments below.
    message: what the policy wrote.
    state: of the reply before; None at the first message.
    example: the data row of the prompt.
    seed: of the conversation.

  Returns:
    Its reply, with a finite reward and bounded texts; reward 0.0 and 'memory'
    on a MemoryError, 'error: …' on any other exception or malformed result. An
    environment that hangs or exits is not handled here.
  """
  try:
    reply = Reply(*environment(message, state, example, seed))
    return check_reply(reply)
  except MemoryError:
    return end(*MEMORY)
  except Exception as error:
    said = f'{type(error).__name__}: {error}'
    return end(*error_verdict(said))


def check_reply(reply: Reply) -> Reply:
  """The reply with a float for its reward, and texts within their bounds.

  Raises:
    TypeError: its reward or its text is of another type.
    ValueError: the reward is not finite, or the state too large or no JSON.
  """
  if reply.reward is None:
    if not isinstance(reply.text, str):
      raise TypeError(f'a text of type {type(reply.text).__name__}')
    if len(json.dumps(reply.state)) > MAX_STATE_LENGTH:
      raise ValueError(f'a state of more than {MAX_STATE_LENGTH:,} characters')
    # Half a surrogate pair has no UTF-8, and no token.
    text = reply.text[:MAX_TEXT_LENGTH].encode('utf-8', 'replace').decode()
    cut = bool(reply.cut) or len(reply.text) > MAX_TEXT_LENGTH
    return Reply(text, reply.state, None, '', cut, bool(reply.malformed))
  if not isinstance(reply.reward, numbers.Real):
    raise TypeError(f'a reward of type {type(reply.reward).__name__}')
  reward = float(reply.reward)
  if not math.isfinite(reward):
    raise ValueError(f'reward {reward} is not finite')
  return end(reward, str(reply.reason)[:MAX_REASON_LENGTH])
