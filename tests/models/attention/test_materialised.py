import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.models.attention import materialised
from dppo_jax.models.attention.sources import KeySource
from tests.support import attention_cases as cases

attend = jax.jit(
  lambda query, parts: materialised.attend(
    query, [KeySource(*part, is_causal=False) for part in parts]
  )
)
_ROWS, _WIDTH, _HEADS, _KV_HEADS, _HEAD_DIM, _SIZE = 4, 3, 4, 2, 6, 7


def _query():
  return cases.normal(_ROWS, _WIDTH, _HEADS, _HEAD_DIM)


def _source(entries=_ROWS, seed=1):
  """Two segments a row, and who looks for which: no causal order."""
  shape = (entries, _KV_HEADS, _SIZE, _HEAD_DIM)
  rng = np.random.default_rng(seed)
  seen = rng.integers(1, 3, (entries, _SIZE))
  seen[:, 0], seen[:, 1], seen[:, 2] = 1, 2, 0
  sought = rng.integers(1, 3, (_ROWS, _WIDTH))
  return (
    cases.normal(*shape, seed=seed),
    cases.normal(*shape, seed=seed + 100),
    seen.astype(np.int32),
    sought.astype(np.int32),
  )


def test_one_source():
  query, source = _query(), _source()
  expected = cases.by_loops(query, [KeySource(*source, is_causal=False)])
  np.testing.assert_allclose(attend(query, [source]), expected, atol=1e-6)


def test_two_sources_equal_the_concatenated_one():
  query, one, two = _query(), _source(seed=1), _source(seed=2)
  two = (*two[:3], one[3])
  whole = (
    jnp.concatenate([one[0], two[0]], axis=2),
    jnp.concatenate([one[1], two[1]], axis=2),
    np.concatenate([one[2], two[2]], axis=1),
    one[3],
  )
  np.testing.assert_allclose(
    attend(query, [one, two]), attend(query, [whole]), atol=1e-6
  )


def test_sources_of_different_lengths():
  query, (keys, values, seen, sought) = _query(), _source()
  parts = [
    (keys[:, :, a:b], values[:, :, a:b], seen[:, a:b], sought)
    for a, b in ((0, 2), (2, 6), (6, 7))
  ]
  np.testing.assert_allclose(
    attend(query, parts),
    attend(query, [(keys, values, seen, sought)]),
    atol=1e-6,
  )


def test_grouped_queries_equal_repeated_heads():
  query, (keys, values, *ids) = _query(), _source()
  repeat = _HEADS // _KV_HEADS
  repeated = (
    jnp.repeat(keys, repeat, axis=1),
    jnp.repeat(values, repeat, axis=1),
    *ids,
  )
  np.testing.assert_allclose(
    attend(query, [(keys, values, *ids)]), attend(query, [repeated]), atol=1e-6
  )


def test_shared_entries_equal_repeated_rows():
  query, source = _query(), _source(entries=2)
  repeated = (
    *(jnp.repeat(a, _ROWS // 2, axis=0) for a in source[:3]),
    source[3],
  )
  np.testing.assert_allclose(
    attend(query, [source]), attend(query, [repeated]), atol=1e-6
  )


def test_ids_broadcast():
  query, (keys, values, seen, sought) = _query(), _source()
  one = (keys, values, seen[:1], sought[:1, :1])
  full = (
    keys,
    values,
    np.broadcast_to(seen[:1], seen.shape),
    np.broadcast_to(sought[:1, :1], sought.shape),
  )
  np.testing.assert_allclose(
    attend(query, [one]), attend(query, [full]), atol=1e-6
  )


def test_hidden_keys_do_not_matter():
  query, (keys, values, *ids) = _query(), _source()
  seen = (ids[0] != 0)[:, None, :, None]
  assert not seen.all()
  other = jnp.where(seen, keys, 1e3), jnp.where(seen, values, 1e3)
  np.testing.assert_array_equal(
    attend(query, [(keys, values, *ids)]), attend(query, [(*other, *ids)])
  )


def test_query_that_sees_nothing_gives_zeros_and_no_gradient():
  query, (keys, values, seen, sought) = _query(), _source()
  sought[1] = 0

  def total(*arrays):
    query, keys, values = arrays
    return jnp.sum(attend(query, [(keys, values, seen, sought)])[1])

  arrays = query, keys, values
  assert total(*arrays) == 0.0
  for gradient in jax.jit(jax.grad(total, (0, 1, 2)))(*arrays):
    np.testing.assert_array_equal(gradient, 0.0)


def test_scores_are_f32_in_bfloat16_compute():
  """Scores near 300 apart by less than their bfloat16 spacing of 2."""
  query = jnp.full((1, 1, 1, 4), 2.0, jnp.bfloat16)
  keys = np.full((1, 1, 2, 4), 75.0, np.float32)
  keys[0, 0, 1, 0] = 75.5
  values = jnp.asarray([[[[0.0], [1.0]]]], jnp.bfloat16)
  ones = np.ones((1, 2), np.int32)
  source = (
    jnp.asarray(keys, jnp.bfloat16),
    jnp.repeat(values, 4, axis=3),
    ones,
    ones[:, :1],
  )
  got = attend(query, [source])
  assert got.dtype == jnp.bfloat16
  # Score difference 0.5 * 2 / sqrt(4).
  expected = 1.0 / (1.0 + np.exp(-0.5))
  np.testing.assert_allclose(np.asarray(got, float), expected, rtol=2**-7)
