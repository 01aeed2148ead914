import jax

from dppo_jax.learner import state as state_lib
from tests.support import runs


def test_the_abstract_state_is_the_state():
  parts = runs.parts()
  with runs.quick_compilation():
    state = state_lib.init_state(
      parts.policy, parts.optimizer, parts.shardings, 0
    )

  def facts(leaf):
    return leaf.shape, leaf.dtype, leaf.sharding

  expected = jax.tree.map(facts, state)
  assert jax.tree.map(facts, parts.abstract_state) == expected
