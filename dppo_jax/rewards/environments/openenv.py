"""Adapter to environments of OpenEnv: classes with `reset`, `step` and `close`.

Such an object changes as it is stepped, and ours are pure. So the state is what
was said: each reply resets a new object with the seed, steps through all
earlier messages again, and compares what it observes with what the policy was
told then. T turns take T (T + 1) / 2 steps.

Nothing of OpenEnv is imported here: whatever resets and steps alike will do.
"""

from collections.abc import Callable, Mapping
import inspect
from typing import TYPE_CHECKING, Any

from dppo_jax.rewards.environments.replies import Reply, end

if TYPE_CHECKING:  # It imports JAX, which a worker process must not.
  from dppo_jax.base import Environment

Example = Mapping[str, Any]


def reset_with_seed(environment: Any, example: Example, seed: int) -> Any:
  """`environment.reset(seed=seed)`, or without it where none is taken."""
  del example
  taken = inspect.signature(environment.reset).parameters
  by_name = any(p.kind is p.VAR_KEYWORD for p in taken.values())
  if 'seed' in taken or by_name:
    return environment.reset(seed=seed)
  return environment.reset()


def adapt(
  make: Callable[[], Any],
  to_action: Callable[[str], Any],
  to_text: Callable[[Any], str],
  reset: Callable[[Any, Example, int], Any] = reset_with_seed,
) -> 'Environment':
  """An `Environment` of a class of OpenEnv.

  The reward of a conversation is the sum over its steps, once one is `done`.
  A message that is no action, so that `to_action` raises a ValueError, is
  answered with that error and stepped by none.

  Args:
    make: the class, or what makes its object.
    to_action: of the policy's message.
    to_text: what the policy reads of an observation.
    reset: (environment, example, seed) resets it. What it observes is not
      shown: the prompt comes before.

  Returns:
    A function for `environment.name`.
  """

  def reply(message: str, state: Any, example: Example, seed: int) -> Reply:
    history = list(state or [])
    try:
      action = to_action(message)
    except ValueError as error:
      return Reply(f'Error: {error}', history, None, '', malformed=True)
    environment, total = make(), 0.0
    try:
      reset(environment, example, seed)
      for said, told in history:
        observed = environment.step(to_action(said))
        total += observed.reward or 0.0
        if observed.done or to_text(observed) != told:
          raise ValueError('another reply to the same messages and seed')
      observed = environment.step(action)
    finally:
      environment.close()
    total += observed.reward or 0.0
    if observed.done:
      return end(total, 'done')
    text = to_text(observed)
    return Reply(text, [*history, [message, text]], None, '')

  return reply
