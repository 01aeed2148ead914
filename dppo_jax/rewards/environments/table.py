"""The environments of this package, by name.

Each is a pure function of (message, state, example, seed). But for those that
ask a library it is bounded in time and memory, so that it may run in the
trainer's process.
"""

from typing import TYPE_CHECKING

from dppo_jax.rewards.environments import calculator, guessing, one_turn

if TYPE_CHECKING:  # It imports JAX, which a worker process must not.
  from dppo_jax.base import Environment

ENVIRONMENTS: 'dict[str, Environment]' = {
  'guessing': guessing.guessing,
  'calculator': calculator.calculator,
  'reasoning_gym': one_turn.reasoning_gym,
  'reasoning_gym_partial': one_turn.reasoning_gym_partial,
}
# Those of reasoning-gym, whose scorers may raise or hang.
LIBRARY = frozenset({'reasoning_gym', 'reasoning_gym_partial'})
