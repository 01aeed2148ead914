import jax.numpy as jnp
import numpy as np

from dppo_jax.models.attention.key_ranges import key_ranges


def _ranges(seen, sought, rows=1, is_causal=False):
  """Pairs of begin and end, in blocks of two."""
  got = key_ranges(
    jnp.asarray(seen), jnp.asarray(sought), rows, 2, 2, is_causal
  )
  return np.stack([got.begin, got.end], axis=-1).tolist()


def test_the_future_and_padding_on_either_side_are_left_out():
  ids = [[0, 0, 0, 1, 1, 1, 0]]
  # The first block and the last have nothing to see.
  assert _ranges(ids, ids, is_causal=True) == [[0, 0], [1, 2], [1, 3], [0, 0]]


def test_segments_of_a_packed_row_are_ranges():
  ids = [[1, 1, 2, 2, 2, 2, 3, 3]]
  assert _ranges(ids, ids, is_causal=True) == [[0, 1], [1, 2], [1, 3], [3, 4]]


def test_rows_have_ranges_of_their_own_unless_they_run_together():
  seen, sought = [[0, 0, 1, 1], [1, 1, 0, 0]], [[1, 1], [1, 0]]
  assert _ranges(seen, sought) == [[1, 2], [0, 1]]
  assert _ranges(seen, sought, rows=2) == [[0, 2]]


def test_rows_that_share_an_entry():
  seen, sought = [[1, 1, 2, 2]], [[1], [2], [0]]
  assert _ranges(seen, sought) == [[0, 1], [1, 2], [0, 0]]
