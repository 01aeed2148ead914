import jax.numpy as jnp
import numpy as np

from dppo_jax.models.attention import sources


def _source(seen, sought, is_causal=False, entries=None):
  seen, sought = jnp.asarray(seen), jnp.asarray(sought)
  keys = jnp.zeros((entries or len(seen), 1, seen.shape[1], 2))
  return sources.KeySource(keys, keys, seen, sought, is_causal=is_causal)


def test_padding_and_the_future_are_hidden():
  ids = [[0, 1, 1]]
  got = sources.visible(_source(ids, ids, is_causal=True), 1, 3)
  expected = [[0, 0, 0], [0, 1, 0], [0, 1, 1]]
  np.testing.assert_array_equal(got[0, 0], expected)


def test_segments_of_a_packed_row_do_not_see_each_other():
  ids = [[1, 1, 2, 2, 0]]
  got = sources.visible(_source(ids, ids, is_causal=True), 1, 5)
  np.testing.assert_array_equal(
    got[0, 0],
    [
      [1, 0, 0, 0, 0],
      [1, 1, 0, 0, 0],
      [0, 0, 1, 0, 0],
      [0, 0, 1, 1, 0],
      [0, 0, 0, 0, 0],
    ],
  )


def test_rows_of_a_group_look_for_different_segments_of_their_entry():
  got = sources.visible(_source([[1, 2], [0, 1]], [[1], [2], [1], [0]]), 4, 1)
  assert got.shape == (2, 2, 1, 2)
  np.testing.assert_array_equal(
    got[:, :, 0], [[[1, 0], [0, 1]], [[0, 1], [0, 0]]]
  )


def test_ids_for_all_rows_stay_small():
  got = sources.visible(_source([[1, 0]], [[1]], entries=3), 6, 1)
  np.testing.assert_array_equal(got, [[[[1, 0]]]])
