"""Pool of environment processes: no environment can crash or stall a run."""

from collections.abc import Sequence
from typing import Any

from dppo_jax.rewards.environments.replies import (
  Reply,
  check_reply,
  end,
  reply_safely,
)
from dppo_jax.rewards.environments.table import ENVIRONMENTS, LIBRARY
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.rewards.terms import Term
from dppo_jax.suggestions import suggest


def check_environment(name: str, num_workers: int) -> None:
  """Raises ValueError if `environment.name` is none, or needs workers.

  Args:
    name: a key of `ENVIRONMENTS`, or 'package.module:function'.
    num_workers: processes; 0 runs it in this one.
  """
  if name in ENVIRONMENTS and (num_workers or name not in LIBRARY):
    return
  module, _, function = name.partition(':')
  if name not in LIBRARY and not (module and function):
    raise ValueError(
      f'environment.name: unknown {name!r}{suggest(name, list(ENVIRONMENTS))}'
      " Or name your own function: 'package.module:function'."
    )
  if num_workers == 0:
    raise ValueError(
      f'rewards.num_workers: got 0 for the environment {name!r}; a user'
      " function, or a library's, needs at least 1, so that it can be stopped."
    )


class EnvironmentPool(VerifierPool):
  """Environment of a run, in worker processes or in this one."""

  kind = 'environment'

  def _parse(self, name: str, num_workers: int) -> tuple[Term, ...]:
    check_environment(name, num_workers)
    return (Term(1.0, name),)

  def _load(self, name: str, extractors: Any, read_thoughts: bool) -> Any:
    del extractors, read_thoughts
    return ENVIRONMENTS[name]

  def _answer(self, function: Any, *item: Any) -> Reply:
    return reply_safely(function, *item)

  def _result(self, *fields: Any) -> Reply:
    return check_reply(Reply(*fields))

  def _failure(self, reason: str) -> Reply:
    return end(0.0, reason)

  def reply(self, items: Sequence[tuple[str, Any, Any, int]]) -> list[Reply]:
    """Replies to messages, in order.

    Args:
      items: (message, state, example, seed) each.

    Returns:
      A reply each; one that ends the conversation with reward 0.0 and
      'timeout', 'memory', 'crashed' or 'error: …' where the environment failed.
    """
    return self._run(items)[0]
