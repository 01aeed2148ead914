import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.base import Rollout, TokenStats
from dppo_jax.sampling import truncate
from tests.support import factories

_WIDTH, _LENGTH, _PAD = 3, 5, 9


def _rollout():
  batch = factories.make_batch(2, 2, _WIDTH, _LENGTH, top_k=2)
  rows = batch.tokens.shape[0]
  return Rollout(
    tokens=jnp.asarray(batch.tokens),
    token_mask=jnp.asarray(batch.token_mask),
    completion_mask=jnp.asarray(batch.completion_mask),
    stats=TokenStats(
      log_probs=jnp.full(batch.tokens.shape, -1.0),
      top_ids=jnp.ones((*batch.tokens.shape, 2), jnp.int32),
      top_log_probs=jnp.full((*batch.tokens.shape, 2), -2.0),
    ),
    group_id=jnp.arange(rows) // 2,
    example_id=jnp.arange(rows),
    truncated=jnp.ones(rows, bool),
    routes=jnp.ones((*batch.tokens.shape, 3, 2), jnp.uint8),
  )


def test_what_comes_after_the_cut_is_gone_and_the_rest_is_untouched():
  before = _rollout()
  kept = np.array([2, _LENGTH, 0, 4])
  stopped = np.array([True, False, False, True])
  after = jax.jit(truncate.cut, static_argnames=('prompt_length', 'pad_id'))(
    before,
    jnp.asarray(kept),
    jnp.asarray(stopped),
    prompt_length=_WIDTH,
    pad_id=_PAD,
  )
  for row, end in enumerate(_WIDTH + kept):
    for name in ('tokens', 'token_mask', 'completion_mask'):
      got, had = getattr(after, name), getattr(before, name)
      np.testing.assert_array_equal(got[row, :end], had[row, :end])
    assert (after.tokens[row, end:] == _PAD).all()
    assert not after.token_mask[row, end:].any()
    assert not after.completion_mask[row, end:].any()
    for got, had in zip(
      jax.tree.leaves((after.stats, after.routes)),
      jax.tree.leaves((before.stats, before.routes)),
      strict=True,
    ):
      np.testing.assert_array_equal(got[row, :end], had[row, :end])
      assert not got[row, end:].any()
  assert after.truncated.tolist() == [False, True, True, False]
