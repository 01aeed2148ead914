from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from dppo_jax.data import mixture


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12))
def test_a_block_is_full_and_holds_every_source(weights):
  sizes = mixture.counts(weights)
  assert sizes.sum() == mixture.BLOCK
  assert sizes.min() >= 1
  shares = np.asarray(weights) / np.sum(weights) * mixture.BLOCK
  # One position each is set aside, and remainders are rounded.
  assert np.abs(sizes - shares).max() <= len(weights) + 1


def test_rows_may_have_fields_of_their_own():
  rows = (
    ('math', '', 2.0),
    ['rows', 'a', 1, [['prompt', 'q'], ['answer', 'a']]],
    ('rows', 'b', 1, {'prompt': 'q'}),
  )
  parsed = mixture.parse(rows)
  assert [row.fields for row in parsed] == [
    {},
    {'prompt': 'q', 'answer': 'a'},
    {'prompt': 'q'},
  ]
  assert parsed[0][:3] == ('math', '', 2.0)


@pytest.mark.parametrize(
  'row',
  [
    'math',
    ('math', ''),
    ('math', '', 1.0, 'q'),
    ('math', '', 1.0, ('prompt', 'q')),
    ('math', '', 1.0, (('prompt', 1),)),
    ('math', '', 1.0, (), 'more'),
  ],
)
def test_rows_of_another_shape_are_refused(row):
  with pytest.raises(ValueError, match=r'^data\.mixture: got .*; a row is'):
    mixture.parse([row])


def test_round_shares_are_exact():
  assert mixture.counts((0.5, 0.5)).tolist() == [500, 500]
  assert mixture.counts((1, 3)).tolist() == [250, 750]
  assert mixture.counts((7.0,)).tolist() == [1000]


def test_ordinals_count_what_came_before():
  weights = (5.0, 3.0, 1.0)
  component, ordinal = mixture.draw(np.arange(3500), weights, 1, 0)
  for i in range(3):
    mine = ordinal[component == i]
    np.testing.assert_array_equal(mine, np.arange(len(mine)))
  # Shuffled within the block, not source after source.
  assert len(np.unique(component[:50])) == 3


def test_a_position_needs_no_other():
  weights = (2.0, 1.0)
  whole = mixture.draw(np.arange(2500), weights, 3, 0)
  for start in (0, 990, 2400):
    part = mixture.draw(np.arange(start, start + 100), weights, 3, 0)
    for got, expected in zip(part, whole, strict=True):
      np.testing.assert_array_equal(got, expected[start : start + 100])


def test_seeds_blocks_and_attempts_differ():
  def sources(start=0, seed=0, attempt=0):
    positions = np.arange(start, start + 1000)
    return mixture.draw(positions, (1.0, 1.0), seed, attempt)[0].tolist()

  orders = [sources(), sources(1000), sources(seed=1), sources(attempt=1)]
  assert len({tuple(order) for order in orders}) == 4
