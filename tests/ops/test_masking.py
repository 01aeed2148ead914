import chex
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.ops import masking
from tests.support.examples import examples

_few = examples(10)
_NORM = 8.0
_masks = hnp.arrays(np.bool_, (4, 3))


_aggregation_weights = jax.jit(
  masking.aggregation_weights, static_argnums=(1, 2)
)


def _weights(mask, aggregation):
  mask = np.asarray(mask, bool)
  return np.asarray(_aggregation_weights(mask, aggregation, _NORM))


_masked_sum = jax.jit(masking.masked_sum)


def _loss_by_loop(values, mask, aggregation):
  """The loss of a batch, one sequence after the other, in float64."""
  rows = [v[m].astype(np.float64) for v, m in zip(values, mask, strict=True)]
  rows = [row for row in rows if row.size]
  if not rows:
    return 0.0
  if aggregation == 'token_mean':
    return np.concatenate(rows).mean()
  reduce_row = {
    'sequence_mean_token_mean': np.mean,
    'sequence_mean_token_sum': np.sum,
    'sequence_mean_token_sum_norm': lambda row: np.sum(row) / _NORM,
  }[aggregation]
  return np.mean([reduce_row(row) for row in rows])


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf])
def test_reductions_ignore_what_is_masked(poison):
  values = jnp.array([[1.0, -3.0, poison], [poison, 5.0, poison]])
  mask = jnp.array([[1, 1, 0], [0, 1, 0]], bool)
  assert masking.masked_sum(values, mask) == 3.0
  assert masking.masked_mean(values, mask) == 1.0
  assert masking.masked_max(values, mask) == 5.0
  assert masking.masked_min(values, mask) == -3.0


def test_the_mean_of_one_value_is_that_value():
  mask = jnp.array([False, True])
  assert masking.masked_mean(jnp.array([jnp.inf, 7.0]), mask) == 7.0


def test_extremes_do_not_see_a_zero_that_is_not_there():
  mask = jnp.array([True, True, False])
  assert masking.masked_max(jnp.array([-2.0, -1.0, 9.0]), mask) == -1.0
  assert masking.masked_min(jnp.array([2.0, 1.0, -9.0]), mask) == 1.0


@pytest.mark.parametrize(
  'reduce',
  [
    masking.masked_sum,
    masking.masked_mean,
    masking.masked_max,
    masking.masked_min,
  ],
)
def test_reductions_of_nothing_are_zero(reduce):
  empty = jnp.zeros((2, 2), bool)
  assert reduce(jnp.full((2, 2), jnp.nan), empty) == 0.0


def test_mean_takes_a_mask_of_numbers():
  # A mask of floats counts its True entries and does not weight by them.
  mask = jnp.array([2.0, 1.0, 0.0])
  assert masking.masked_mean(jnp.array([1.0, 3.0, jnp.nan]), mask) == 2.0


def test_sums_are_taken_in_f32():
  values = jnp.ones(300, jnp.bfloat16)
  total = masking.masked_sum(values, jnp.ones(300, bool))
  assert total.dtype == jnp.float32
  assert total == 300.0


@pytest.mark.parametrize('reduce', [masking.masked_sum, masking.masked_mean])
def test_gradient_does_not_leak_from_masked_positions(reduce):
  def loss(x):
    return reduce(jnp.log(x), jnp.array([True, True, False]))

  gradient = jax.grad(loss)(jnp.array([1.0, 2.0, 4.0]))
  count = 1.0 if reduce is masking.masked_sum else 2.0
  np.testing.assert_allclose(
    gradient, np.array([1.0, 0.5, 0.0]) / count, rtol=1e-6
  )


@pytest.mark.parametrize(
  'reduce', [masking.masked_sum, masking.masked_max, masking.masked_min]
)
def test_reductions_refuse_a_mask_of_another_shape(reduce):
  with pytest.raises(AssertionError):
    reduce(jnp.ones((2, 3)), jnp.ones((2, 1), bool))


@pytest.mark.parametrize('reduce', [masking.masked_max, masking.masked_min])
def test_extremes_are_f32(reduce):
  values = jnp.ones(3, jnp.bfloat16)
  assert reduce(values, jnp.ones(3, bool)).dtype == jnp.float32


_ROWS = np.array([[1.0, -3.0, 9.0], [-5.0, -7.0, 9.0], [9.0, 9.0, 9.0]])
_COUNTED = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]], bool)


@pytest.mark.parametrize('poison', [9.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
  ('reduce', 'want'),
  [(masking.row_mean, [-1.0, -6.0, 0.0]), (masking.row_max, [1.0, -5.0, 0.0])],
)
def test_rows_by_hand(reduce, want, poison):
  values = np.where(_COUNTED, _ROWS, poison).astype(np.float32)
  np.testing.assert_array_equal(reduce(values, _COUNTED), want)


@pytest.mark.parametrize('reduce', [masking.row_mean, masking.row_max])
def test_rows_are_reduced_in_f32(reduce):
  got = reduce(jnp.ones((1, 300), jnp.bfloat16), jnp.ones((1, 300), bool))
  assert got.dtype == jnp.float32
  np.testing.assert_array_equal(got, [1.0])
  with pytest.raises(AssertionError):
    reduce(jnp.ones((2, 3)), jnp.ones((2, 1), bool))


_quantile = jax.jit(masking.masked_quantile)


@_few
@given(
  values=hnp.arrays(np.float32, (4, 3), elements=st.floats(-9, 9, width=16)),
  mask=_masks,
  quantile=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
)
def test_quantile_is_numpys(values, mask, quantile):
  poisoned = np.where(mask, values, np.float32(np.nan))
  got = np.asarray(_quantile(poisoned, mask, quantile))
  want = [
    np.percentile(v[m].astype(np.float64), 100 * quantile) if m.any() else 0.0
    for v, m in zip(values, mask, strict=True)
  ]
  assert got.shape == (4,)
  np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_quantile_of_long_rows():
  values = np.random.default_rng(0).normal(size=(2, 500)).astype(np.float32)
  mask = np.arange(500)[None] < np.array([[500], [371]])
  want = [np.percentile(v[m], 90) for v, m in zip(values, mask, strict=True)]
  np.testing.assert_allclose(_quantile(values, mask, 0.9), want, rtol=1e-5)


def test_quantile_refuses_what_is_not_a_batch():
  with pytest.raises(AssertionError):
    masking.masked_quantile(jnp.ones(3), jnp.ones(3, bool), 0.5)


# One row of three tokens, one of one, one of none.
_BY_HAND = {
  'token_mean': [[1 / 4, 1 / 4, 1 / 4], [0, 1 / 4, 0], [0, 0, 0]],
  'sequence_mean_token_mean': [[1 / 6, 1 / 6, 1 / 6], [0, 1 / 2, 0], [0, 0, 0]],
  'sequence_mean_token_sum': [[1 / 2, 1 / 2, 1 / 2], [0, 1 / 2, 0], [0, 0, 0]],
  'sequence_mean_token_sum_norm': [
    [1 / 16, 1 / 16, 1 / 16],
    [0, 1 / 16, 0],
    [0, 0, 0],
  ],
}


@pytest.mark.parametrize('aggregation', masking.AGGREGATIONS)
def test_weights_by_hand(aggregation):
  mask = [[1, 1, 1], [0, 1, 0], [0, 0, 0]]
  weights = _weights(mask, aggregation)
  assert weights.dtype == np.float32
  np.testing.assert_allclose(weights, _BY_HAND[aggregation], rtol=1e-6)


@pytest.mark.parametrize('aggregation', masking.AGGREGATIONS)
def test_empty_sequences_leave_the_count(aggregation):
  mask = np.array([[1, 1, 0], [1, 0, 0]], bool)
  padded = np.concatenate([mask, np.zeros((3, 3), bool)])
  weights = _weights(padded, aggregation)
  np.testing.assert_array_equal(weights[:2], _weights(mask, aggregation))
  np.testing.assert_array_equal(weights[2:], 0.0)


@pytest.mark.parametrize('aggregation', masking.AGGREGATIONS)
def test_padding_columns_change_nothing(aggregation):
  mask = np.array([[1, 1, 0], [1, 0, 0]], bool)
  wide = np.pad(mask, [(0, 0), (0, 4)])
  weights = _weights(wide, aggregation)
  np.testing.assert_array_equal(weights[:, :3], _weights(mask, aggregation))


@pytest.mark.parametrize('aggregation', masking.AGGREGATIONS)
def test_nothing_to_count_gives_zeros(aggregation):
  # Not compiled: XLA rewrites 0/0 under a mask to 0 and would hide it.
  one_of_three = jnp.array([[1, 1], [0, 0], [0, 0]], bool)
  for mask in (jnp.zeros((3, 2), bool), one_of_three):
    weights = masking.aggregation_weights(mask, aggregation, _NORM)
    np.testing.assert_array_equal(weights[1:], 0.0)
    assert np.isfinite(weights).all()


@pytest.mark.parametrize('aggregation', masking.AGGREGATIONS)
@_few
@given(mask=_masks, order=st.permutations(range(4)))
def test_parts_add_up_to_the_whole(aggregation, mask, order):
  # However the rows are dealt out, the parts share the whole's denominators.
  values = np.arange(12, dtype=np.float32).reshape(4, 3) - 4.5
  weights = _weights(mask, aggregation)
  parts = sum(
    float(_masked_sum((weights * values)[rows], mask[rows]))
    for rows in (np.array(order[:1]), np.array(order[1:]))
  )
  want = _loss_by_loop(values, mask, aggregation)
  np.testing.assert_allclose(parts, want, rtol=1e-5, atol=1e-6)


def test_weights_refuse_what_is_not_a_batch():
  with pytest.raises(AssertionError):
    masking.aggregation_weights(jnp.ones(3, bool), 'token_mean', 1.0)
  with pytest.raises(KeyError):
    masking.aggregation_weights(jnp.ones((1, 3), bool), 'mean', 1.0)


def test_weights_compile_with_a_traced_mask():
  @jax.jit
  @chex.assert_max_traces(n=1)
  def weights(mask):
    return masking.aggregation_weights(mask, 'token_mean', 1.0)

  for filled in (1, 2):
    mask = jnp.arange(4)[None] < filled
    np.testing.assert_allclose(jnp.sum(weights(mask)), 1.0, rtol=1e-6)
