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


@pytest.mark.parametrize('entropy_slope', [None, 0.05])
@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float32])
def test_gradients_of_the_logits_sum_to_zero(entropy_slope, dtype):
  """Within a unit in the last place of a, and as in f64 at every column."""
  rng = np.random.default_rng(0)
  head = rng.normal(size=(512, 8)).astype(np.float32)
  scale = rng.uniform(0, 8, (64, 1))
  hidden = (scale * rng.normal(size=(64, 8))).astype(np.float32)
  tokens = np.where(np.arange(64) < 48, (hidden @ head.T).argmax(1), 3)
  slope = rng.uniform(-1, 1, 64).astype(np.float32)
  h = None if entropy_slope is None else np.full(64, entropy_slope, np.float32)
  shard = Shard.of(factories.vocabulary_axes(), 512, 512)
  chunk = vocabulary_shard.chunk_stats(
    shard,
    jnp.asarray(head),
    jnp.asarray(hidden),
    jnp.asarray(tokens),
    None,
    1.0,
    with_entropy=h is not None,
  )
  got, _ = vocabulary_shard.logit_gradient(
    shard, chunk, jnp.asarray(tokens), jnp.asarray(slope), h, 1.0, dtype
  )
  got = np.asarray(got, np.float64)
  logits = np.asarray(chunk.logits, np.float64)
  log_p = logits - logits.max(1, keepdims=True)
  log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
  p = np.exp(log_p)
  expected = slope[:, None] * (np.eye(512)[tokens] - p)
  if h is not None:
    entropy = -(p * log_p).sum(1, keepdims=True)
    expected -= entropy_slope * p * (log_p + entropy)
  ulp = np.abs(slope) * float(jnp.finfo(dtype).eps)
  assert (np.abs(got.sum(1)) <= ulp + 1e-7).all()
  size = np.abs(expected).max(1, keepdims=True)
  np.testing.assert_allclose(
    got / size, expected / size, atol=2e-6 + 0.5 * float(jnp.finfo(dtype).eps)
  )
