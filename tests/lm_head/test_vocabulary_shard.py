import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.lm_head import vocabulary_shard
from dppo_jax.lm_head.vocabulary_shard import PADDING_LOGIT, Chunks, Shard
from tests.support import factories

_MASK = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 1], [1, 1, 1, 1]], bool)


def _walk(size, mask=_MASK):
  """What each chunk in use holds, and what comes back where it stood."""
  leaf = jnp.arange(1, mask.size + 1).reshape(mask.shape)

  @jax.jit
  def walk(mask):
    chunks = Chunks.of(mask, size)
    seen = jnp.zeros((mask.size, chunks.size), int)

    def step(index, carry):
      seen, back = carry
      taken = chunks.take(leaf, index)
      return seen.at[index].set(taken), chunks.put(back, index, taken)

    return chunks.loop(step, (seen, jnp.zeros(mask.size, int)))

  seen, back = walk(jnp.asarray(mask))
  return np.asarray(seen), np.asarray(back).reshape(mask.shape)


@pytest.mark.parametrize('size', [1, 2, 3, 8, 9, 10, 15])
def test_only_tokens_that_count_are_visited_in_time_order(size):
  seen, back = _walk(size)
  wanted = np.arange(1, _MASK.size + 1).reshape(_MASK.shape)[_MASK]
  visited = seen[seen > 0]
  np.testing.assert_array_equal(visited, wanted)
  # Whole chunks but for the last one, and none after it.
  filled = (seen > 0).sum(1)
  used = -(-len(wanted) // size)
  assert (filled[: used - 1] == size).all()
  assert not filled[used:].any()
  np.testing.assert_array_equal(back > 0, _MASK)


def test_one_chunk_takes_everything_as_it_is():
  seen, back = _walk(_MASK.size)
  np.testing.assert_array_equal(seen[0], np.arange(1, _MASK.size + 1))
  assert (back > 0).all()


def test_nothing_to_visit():
  seen, back = _walk(3, np.zeros((4, 4), bool))
  assert not seen.any()
  assert not back.any()


def test_shapes_behind_the_rows_are_kept():
  chunks = Chunks.of(jnp.asarray(_MASK), 3)
  leaf = jnp.arange(32.0).reshape(4, 4, 2)
  taken = chunks.take(leaf, 1)
  np.testing.assert_array_equal(taken, np.asarray(leaf)[_MASK][3:6])


def test_the_columns_of_one_device():
  shard = Shard.of(factories.vocabulary_axes(), 20, 20)
  assert (shard.held, shard.width, shard.first) == (20, 20, 0)
  column, here = shard.local(jnp.array([-1, 0, 19, 20]))
  assert here.tolist() == [False, True, True, False]
  assert column.tolist() == [0, 0, 19, 0]


def test_padding_is_masked_where_it_is():
  """Forty-one columns in shards of six: the last holds five, padded to 128."""
  axes = factories.vocabulary_axes()
  shard = Shard(axes, 36, 6, 128, 41)
  weights = shard.pad(jnp.ones((6, 2)))
  got = vocabulary_shard.project(shard, weights, jnp.ones((3, 2)), 0.5)
  assert got.shape == (3, 128)
  np.testing.assert_array_equal(got[:, :5], 4.0)
  np.testing.assert_array_equal(got[:, 5:], np.float32(PADDING_LOGIT))


def test_products_are_accumulated_in_f32():
  """Of bf16, 256 ones and 256 times 2**-9 are not 256."""
  a = jnp.ones((1, 512), jnp.bfloat16)
  b = jnp.where(jnp.arange(512) % 2 == 0, 1.0, 2.0**-9).astype(jnp.bfloat16)
  got = vocabulary_shard.product(a, b[:, None], 1, 0)
  assert got.dtype == jnp.float32
  assert float(got[0, 0]) == 256.5
