import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.models.attention import blockwise, materialised
from dppo_jax.models.attention.blockwise import Blocks
from dppo_jax.models.attention.sources import KeySource
from tests.support import attention_cases as cases


def _attend(rows, queries, keys):
  blocks = Blocks(rows=rows, queries=queries, keys=keys)
  return lambda query, sources: blockwise.attend(query, sources, blocks)


# Of 53 queries over 37 and 53 keys: sizes that divide none of them, and one
# block.
@pytest.mark.parametrize(
  ('rows', 'queries', 'keys'),
  [(1, 16, 16), (6, 7, 11), (1, 64, 64)],
)
def test_agrees_with_all_scores(rows, queries, keys):
  case = cases.shared_prompt()
  out, gradients = cases.agree(case, _attend(rows, queries, keys))
  np.testing.assert_array_equal(out[1], 0.0)  # A row without tokens.
  for gradient in gradients:
    assert np.isfinite(gradient).all()
  np.testing.assert_array_equal(gradients[0][1], 0.0)
  np.testing.assert_array_equal(gradients[3][1], 0.0)


def test_agrees_with_loops():
  case = cases.shared_prompt(length=20)
  got = jax.jit(_attend(1, 8, 8))(case.arrays[0], case.sources(case.arrays))
  expected = cases.by_loops(case.arrays[0], case.sources(case.arrays))
  np.testing.assert_allclose(got, expected, atol=1e-6)


def test_blocks_that_the_mask_empties_are_not_read():
  """Infinite values there would be NaN in the sums, even at weight 0."""
  case = cases.shared_prompt(prompt_length=48, length=64, packed=False)
  query, *others = case.arrays
  prompt, _, own = case.ids
  masks = [(ids == 0)[:, None, :, None] for ids in (prompt, own)]
  # Whole blocks of padding only.
  bad = [
    np.repeat(m.reshape(*m.shape[:2], -1, 8, 1).all(3), 8, axis=2)
    for m in masks
  ]
  arrays = (
    query,
    *(
      jnp.where(m, jnp.nan, x)
      for m, x in zip((bad[0],) * 2 + (bad[1],) * 2, others, strict=True)
    ),
  )
  assert np.isnan(arrays[1]).any()
  assert np.isnan(arrays[3]).any()
  attend = _attend(1, 8, 8)
  got = cases.outputs_and_gradients(case, attend, arrays)
  expected = cases.outputs_and_gradients(case, attend)
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    np.testing.assert_array_equal(x, y)


def test_the_future_is_not_read():
  case = cases.shared_prompt(length=64, packed=False)
  query, *prompt, keys, values = case.arrays
  late = (np.arange(64) >= 32)[None, None, :, None]
  arrays = (
    query,
    *prompt,
    *(jnp.where(late, jnp.nan, x) for x in (keys, values)),
  )
  got = jax.jit(_attend(1, 8, 8))(query, case.sources(arrays))
  assert np.isfinite(got[:, :32]).all()
  assert np.isnan(got[0, 32:]).all()


def test_bfloat16_errs_no_more_than_all_scores():
  case = cases.shared_prompt(prompt_length=64, length=96)
  arrays = jax.tree.map(lambda x: x.astype(jnp.bfloat16), case.arrays)
  exact = cases.outputs_and_gradients(
    case,
    materialised.attend,
    jax.tree.map(lambda x: x.astype(jnp.float32), arrays),
  )

  def errors(attend):
    got = cases.outputs_and_gradients(case, attend, arrays)
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(exact), strict=True)
    return [
      float(jnp.sqrt(jnp.mean((x.astype(jnp.float32) - y) ** 2)))
      for x, y in pairs
    ]

  blocks = errors(_attend(1, 16, 16))
  for mine, theirs in zip(blocks, errors(materialised.attend), strict=True):
    assert 0.0 < mine <= 1.02 * theirs


def test_under_vmap():
  case = cases.shared_prompt(length=24)
  attend = _attend(1, 8, 8)

  def total(query):
    return jnp.sum(attend(query, case.sources(case.arrays)) * weights)

  weights = cases.normal(*case.arrays[0].shape, seed=9)
  queries = jnp.stack([case.arrays[0], -case.arrays[0]])
  got = jax.jit(jax.vmap(jax.grad(total)))(queries)
  for one, query in zip(got, queries, strict=True):
    expected = jax.jit(jax.grad(total))(query)
    np.testing.assert_allclose(one, expected, atol=1e-6)


def test_one_query_over_a_cache_of_several_lengths():
  """Decoding: every row has its own number of keys, and one of its own."""
  rows, size = 4, 40
  query = cases.normal(rows, 1, 4, 8)
  cache = [cases.normal(rows, 2, size, 8, seed=s) for s in (1, 2)]
  own = [cases.normal(rows, 2, 1, 8, seed=s) for s in (3, 4)]
  written = np.arange(size) < np.array([0, 1, 17, 40])[:, None]
  one = np.ones((1, 1), np.int32)
  sources = [
    KeySource(*cache, written.astype(np.int32), one, is_causal=False),
    KeySource(*own, one, one, is_causal=True),
  ]
  got = [jax.jit(_attend(n, 1, 8))(query, sources) for n in (1, rows)]
  expected = cases.by_loops(query, sources)
  for out in got:
    np.testing.assert_allclose(out, expected, atol=1e-6)
  # What was not written yet changes nothing, to the bit.
  longer = [jnp.pad(x, ((0, 0), (0, 0), (0, 24), (0, 0))) for x in cache]
  ids = np.pad(written.astype(np.int32), ((0, 0), (0, 24)))
  sources[0] = KeySource(*longer, ids, one, is_causal=False)
  np.testing.assert_array_equal(
    jax.jit(_attend(1, 1, 8))(query, sources), got[0]
  )
