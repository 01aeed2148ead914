import dataclasses

import jax

from dppo_jax.learner.loss_config import Context, LossConfig
from tests.support import factories


def test_a_config_is_a_constant_of_a_program():
  """Equal configs are one key of a cache of compiled programs."""
  one, two = factories.loss_config(), factories.loss_config()
  assert hash(one) == hash(two)
  assert one == two
  for field in dataclasses.fields(LossConfig):
    assert not isinstance(getattr(one, field.name), list), field.name


def test_what_is_not_read_is_no_leaf_of_the_context():
  rows = [1.0, 2.0, 3.0, 4.0, 5.0]
  bare = Context(
    weights=rows[0],
    mask=rows[1],
    advantages=rows[2],
    rollout_log_probs=rows[3],
    anchor_log_probs=rows[4],
    reference_log_probs=None,
  )
  assert jax.tree.leaves(bare) == rows
