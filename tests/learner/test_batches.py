import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import Conversations, Rollout, TokenStats
from dppo_jax.learner import batches
from dppo_jax.ops.masking import aggregation_weights

# Two groups of two; completions of 2, 1, 3 and 3 of three tokens.
_MASK = np.array(
  [[0, 0, 1, 1, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1]], bool
)
_REWARDS = jnp.array([1.0, 0.0, 3.0, 3.0])


def _rollout(**overrides):
  stats = dict(
    log_probs=jnp.where(_MASK, -1.0, 0.0),
    top_ids=jnp.zeros((4, 5, 2), jnp.int32),
    top_log_probs=jnp.log(
      jnp.where(_MASK[..., None], jnp.array([[[0.5, 0.25]]]), 1.0)
    ),
    entropy=jnp.where(_MASK, jnp.array([[1.0], [4.0], [2.0], [2.0]]), 99.0),
  )
  return Rollout(
    tokens=jnp.arange(20, dtype=jnp.int32).reshape(4, 5),
    token_mask=jnp.asarray(_MASK).at[:, :2].set(True),
    completion_mask=jnp.asarray(_MASK),
    stats=TokenStats(**{**stats, **overrides}),
    group_id=jnp.array([0, 0, 1, 1]),
    example_id=jnp.array([7, 7, 8, 8]),
    truncated=jnp.array([False, False, True, False]),
  )


@pytest.mark.parametrize(
  ('estimator', 'expected'),
  [
    ('group_mean', [0.5, -0.5, 0.0, 0.0]),
    ('leave_one_out', [1.0, -1.0, 0.0, 0.0]),
    ('group_mean_std', [np.sqrt(0.5), -np.sqrt(0.5), 0.0, 0.0]),
  ],
)
def test_one_advantage_a_completion_on_its_tokens(estimator, expected):
  batch = batches.make_batch(
    _rollout(),
    _REWARDS,
    group_size=2,
    estimator=estimator,
    recomputed=None,
    reference=None,
  )
  expected = np.where(_MASK, np.array(expected)[:, None], 0.0)
  np.testing.assert_allclose(batch.advantages, expected, atol=1e-5)
  assert batch.advantages.dtype == jnp.float32


def test_integer_rewards_are_taken_as_floats():
  batch = batches.make_batch(
    _rollout(),
    jnp.array([1, 0, 3, 3]),
    group_size=4,
    estimator='group_mean',
    recomputed=None,
    reference=None,
  )
  np.testing.assert_allclose(batch.advantages[:, 2], [-0.75, -1.75, 1.25, 1.25])


def test_the_rest_is_passed_on():
  rollout = _rollout()
  recomputed = TokenStats(log_probs=jnp.full((4, 5), -2.0))
  reference = TokenStats(log_probs=jnp.full((4, 5), -3.0))
  batch = batches.make_batch(
    rollout,
    _REWARDS,
    group_size=2,
    estimator='group_mean',
    recomputed=recomputed,
    reference=reference,
  )
  assert batch.tokens is rollout.tokens
  assert batch.token_mask is rollout.token_mask
  assert batch.completion_mask is rollout.completion_mask
  assert batch.rollout is rollout.stats
  assert batch.recomputed is recomputed
  assert batch.reference is reference


def test_rewards_are_one_number_a_row():
  with pytest.raises(AssertionError):
    batches.make_batch(
      _rollout(),
      _REWARDS[:, None],
      group_size=2,
      estimator='group_mean',
      recomputed=None,
      reference=None,
    )


def test_metrics_by_hand():
  metrics = batches.rollout_metrics(_rollout(), _REWARDS, 2)
  assert {name: float(value) for name, value in metrics.items()} == {
    'rewards/mean': pytest.approx(1.75),
    'rewards/std': pytest.approx(np.std([1.0, 0.0, 3.0, 3.0])),
    'rewards/zero_variance_groups': 0.5,
    'rollout/length_mean': 2.25,
    'rollout/length_max': 3.0,
    'rollout/truncated': 0.25,
    'rollout/entropy_mean': pytest.approx((2 * 1.0 + 4.0 + 6 * 2.0) / 9),
    'rollout/topk_mass': pytest.approx(0.75),
  }


def test_metrics_of_what_was_not_recorded_are_absent():
  rollout = _rollout(top_ids=None, top_log_probs=None, entropy=None)
  metrics = batches.rollout_metrics(rollout, _REWARDS, 2)
  assert 'rollout/topk_mass' not in metrics
  assert 'rollout/entropy_mean' not in metrics
  assert 'rewards/mean' in metrics


def test_groups_that_are_left_out_leave_nothing_to_train_on():
  batch = batches.make_batch(
    _rollout(),
    _REWARDS,
    group_size=2,
    estimator='group_mean',
    recomputed=TokenStats(log_probs=jnp.full((4, 5), -2.0)),
    reference=None,
  )
  kept = batches.keep_groups(batch, jnp.array([True, False]), 2)
  for name in ('completion_mask', 'advantages'):
    got, had = getattr(kept, name), getattr(batch, name)
    np.testing.assert_array_equal(got[:2], had[:2])
    assert not got[2:].any()
  for name in ('rollout', 'recomputed'):
    pairs = zip(
      jax.tree.leaves(getattr(kept, name)),
      jax.tree.leaves(getattr(batch, name)),
      strict=True,
    )
    for got, had in pairs:
      np.testing.assert_array_equal(got[:2], had[:2])
      assert not got[2:].any()
  assert kept.reference is None
  np.testing.assert_array_equal(kept.tokens, batch.tokens)
  np.testing.assert_array_equal(kept.token_mask, batch.token_mask)
  whole = batches.keep_groups(batch, jnp.array([True, True]), 2)
  jax.tree.map(np.testing.assert_array_equal, whole, batch)


@pytest.mark.parametrize(
  ('aggregation', 'shares'),
  [
    # Tokens of the rows: 2, 1, 3, 3; the third is left out.
    ('token_mean', [1 / 6] * 4),
    ('sequence_mean_token_mean', [1 / 6, 1 / 3, 0.0, 1 / 9]),
    ('sequence_mean_token_sum', [1 / 3] * 4),
    ('sequence_mean_token_sum_norm', [1 / 12] * 4),
  ],
)
def test_a_completion_that_is_left_out_is_in_no_denominator(
  aggregation, shares
):
  batch = batches.make_batch(
    _rollout(),
    jnp.array([1.0, 0.0, 3.0, 1.0]),
    group_size=2,
    estimator='group_mean',
    recomputed=None,
    reference=None,
  )
  kept = batches.keep_rows(batch, jnp.array([True, True, False, True]))
  mask = kept.completion_mask
  assert mask.sum(axis=1).tolist() == [2, 1, 0, 3]
  weights = aggregation_weights(mask, aggregation, 4.0)
  want = np.where(mask, np.array(shares)[:, None], 0.0)
  np.testing.assert_allclose(weights, want, rtol=1e-6)
  # Its reward stays in the mean of its group.
  np.testing.assert_allclose(kept.advantages[3, 2:], -1.0)
  assert not kept.advantages[2].any()


def _conversations():
  """Turns of 1 and 1 token with a reply between; one of two; of one; of one."""
  mask = np.zeros((4, 5), bool)
  mask[0, [2, 4]] = mask[1, [2, 3]] = mask[2, 2] = mask[3, 2] = True
  turn = np.where(mask, 1, 0)
  turn[0, 4] = 2
  real = mask.copy()
  real[:, :2] = real[0, 3] = True
  return dataclasses.replace(
    _rollout(),
    completion_mask=jnp.asarray(mask),
    token_mask=jnp.asarray(real),
    conversation=Conversations(
      turn=jnp.asarray(turn),
      reward=_REWARDS,
      reason=jnp.zeros((4, 8), jnp.uint8),
      replies_cut=jnp.array([2, 0, 0, 0]),
      malformed=jnp.array([0, 2, 0, 1]),
    ),
  )


def test_conversations_have_metrics_by_turn():
  metrics = batches.rollout_metrics(_conversations(), _REWARDS, 2, max_turns=3)
  expected = {
    'rollout/turns_mean': 5 / 4,
    'rollout/told_share': 1 / 7,
    'rollout/replies_cut': 1 / 4,
    'rollout/malformed_messages': 3 / 4,
    'rollout/share_turns_1': 3 / 4,
    'rollout/share_turns_2': 1 / 4,
    'rollout/share_turns_3': 0.0,
    'rewards/mean_turns_1': 2.0,
    'rewards/mean_turns_2': 1.0,
    'rewards/mean_turns_3': 0.0,
    'rollout/length_mean': 6 / 4,
  }
  for name, value in expected.items():
    assert metrics[name] == pytest.approx(value), name
  plain = batches.rollout_metrics(_rollout(), _REWARDS, 2, max_turns=3)
  assert not any('turn' in name for name in plain)


def test_a_batch_keeps_the_turns():
  rollout = _conversations()
  batch = batches.make_batch(
    rollout,
    _REWARDS,
    group_size=2,
    estimator='group_mean',
    recomputed=None,
    reference=None,
  )
  np.testing.assert_array_equal(batch.turn, rollout.conversation.turn)
  np.testing.assert_array_equal(batch.advantages[0], [0, 0, 0.5, 0, 0.5])
