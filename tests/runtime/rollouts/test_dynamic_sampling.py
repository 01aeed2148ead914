import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.base import Rollout, TokenStats
from dppo_jax.rewards.verdicts import Verdict
from dppo_jax.runtime.rollouts import dynamic_sampling

_GROUP, _COLUMNS = 2, 3


def _drawn(attempt, rewards, ids):
  """Groups whose every number says where they come from."""
  rows = len(rewards)
  mark = 100 * attempt + np.arange(rows)
  mask = np.ones((rows, _COLUMNS), bool)
  rollout = Rollout(
    tokens=np.repeat(mark[:, None], _COLUMNS, 1),
    token_mask=mask,
    completion_mask=mask,
    stats=TokenStats(log_probs=-1.0 * np.repeat(mark[:, None], _COLUMNS, 1)),
    group_id=np.repeat(np.arange(rows // _GROUP), _GROUP),
    example_id=np.repeat(ids, _GROUP),
    truncated=mark % 2 == 0,
    decode_steps=np.full(rows, 3 + attempt),
  )
  return dynamic_sampling.Drawn(
    jax.tree.map(jnp.asarray, rollout),
    rollout,
    [f'text {m}' for m in mark],
    [Verdict(float(r), f'{m}') for m, r in zip(mark, rewards, strict=True)],
    {'rewards/errors': 0.0},
  )


def _collect(batches, max_attempts):
  asked = []

  def draw(attempt):
    asked.append(attempt)
    return _drawn(attempt, *batches[attempt])

  collected = dynamic_sampling.collect(
    draw, jax.jit(dynamic_sampling.merge), _GROUP, max_attempts
  )
  return collected, asked


_FIRST = ([0, 1, 0, 0, 1, 1, 1, 0], [5, 6, 7, 8])
_SECOND = ([1, 0, 1, 0, 0, 0, 1, 0], [5, 6, 9, 10])


def test_groups_without_variance_give_their_places_to_others():
  # Prompt 5 is in the batch already; 6 is one that went.
  collected, asked = _collect([_FIRST, _SECOND], 5)
  assert asked == [0, 1]
  assert collected.varied.all()
  rows = [0, 1, 102, 103, 106, 107, 6, 7]
  drawn = collected.drawn
  for rollout in (drawn.rollout, drawn.on_host):
    np.testing.assert_array_equal(rollout.tokens[:, 0], rows)
    np.testing.assert_array_equal(
      rollout.stats.log_probs[:, 1], np.multiply(rows, -1.0)
    )
    np.testing.assert_array_equal(
      rollout.example_id, np.repeat([5, 6, 10, 8], 2)
    )
    np.testing.assert_array_equal(rollout.group_id, np.repeat(range(4), 2))
    np.testing.assert_array_equal(rollout.truncated, np.array(rows) % 2 == 0)
  assert drawn.completions == [f'text {row}' for row in rows]
  assert [v.reason for v in drawn.verdicts] == [str(row) for row in rows]
  assert drawn.rewards().tolist() == [0, 1, 1, 0, 1, 0, 1, 0]
  assert collected.num_attempts == 2
  assert collected.num_tokens == 2 * 8 * _COLUMNS
  # Of both batches, whatever of them is kept.
  assert collected.useful_decode_share == 2 * 8 * 2 / (8 * 3 + 8 * 4)
  assert collected.reward_mean == (4 + 3) / 16


def test_what_cannot_be_replaced_stays_and_is_named():
  third = ([0] * 8, [1, 2, 3, 4])
  collected, asked = _collect([_FIRST, third, third], 3)
  assert asked == [0, 1, 2]
  assert collected.varied.tolist() == [True, False, False, True]
  np.testing.assert_array_equal(collected.drawn.on_host.tokens[:, 0], range(8))


def test_one_attempt_replaces_nothing():
  collected, asked = _collect([_FIRST], 1)
  assert asked == [0]
  assert collected.varied.tolist() == [True, False, False, True]
  assert collected.reward_mean == 0.5


def test_a_full_batch_asks_for_no_more():
  collected, asked = _collect([([0, 1] * 4, [1, 2, 3, 4])], 5)
  assert asked == [0]
  assert collected.varied.all()


def test_a_prompt_joins_once():
  second = ([1, 0] * 4, [9, 9, 9, 9])
  collected, _ = _collect([_FIRST, second], 2)
  assert collected.varied.tolist() == [True, True, False, True]


def test_tokens_that_were_cut_are_no_useful_work():
  drawn = _drawn(0, *_FIRST)
  mask = drawn.on_host.completion_mask.copy()
  mask[:4, 1:] = False
  mask[0] = False
  cut = drawn._replace(on_host=drawn.on_host.replace(completion_mask=mask))
  collected = dynamic_sampling.collect(lambda _: cut, None, _GROUP, 1)
  assert collected.useful_decode_share == 4 * 2 / (8 * 3)
  none = cut._replace(on_host=cut.on_host.replace(decode_steps=np.zeros(8)))
  collected = dynamic_sampling.collect(lambda _: none, None, _GROUP, 1)
  assert collected.useful_decode_share == 1.0


def test_variance():
  rewards = np.array([0.0, 0.0, 0.5, 0.25, 1.0, 1.0])
  assert dynamic_sampling.varied(rewards, 2).tolist() == [False, True, False]
  assert dynamic_sampling.varied(rewards, 3).tolist() == [True, True]
