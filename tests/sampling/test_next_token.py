import functools
import re
from unittest import mock

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.ops.log_probs import LOWEST_LOG_PROB, token_stats
from dppo_jax.sampling import next_token
from tests.support import factories

_ROWS, _K = 8, 5
_SIZES = [20, 300, 1024, 5000]


def _logits(size, seed=0):
  rng = np.random.default_rng((size, seed))
  return (3 * rng.normal(size=(_ROWS, size))).astype(np.float32)


@functools.cache
def _program(mesh, top_k, platform):
  """Compiled once, as if on that platform."""

  @jax.jit
  def run(logits, uniform):
    with mock.patch.object(
      next_token.cpu_bfloat16, 'platform_of', return_value=platform
    ):
      return next_token.sample_token(
        factories.vocabulary_axes(mesh),
        logits,
        uniform,
        temperature=0.7,
        top_k=top_k,
      )

  return run


def _run(logits, uniform, mesh=None, top_k=_K, platform='cpu'):
  return jax.device_get(_program(mesh, top_k, platform)(logits, uniform))


# Every size over all devices; over fewer, some on either side of a block.
_SPLITS = [
  *(((1, 1, 8), size) for size in (*_SIZES, 3, 37)),
  *(((2, 2, 2), size) for size in (3, 37, 300)),
  *(((4, 1, 2), size) for size in (20, 1024)),
  *(((8, 1, 1), size) for size in (37, 300)),
]


def _uniform(seed):
  rng = np.random.default_rng(seed)
  return rng.random(_ROWS).astype(np.float32)


@pytest.mark.parametrize('size', _SIZES)
def test_records_what_the_whole_law_says(size):
  logits = _logits(size)
  tokens, stats = _run(logits, _uniform(0))
  assert tokens.dtype == jnp.int32
  ids = np.argsort(-logits, axis=1)[:, :_K]
  whole = jax.jit(
    functools.partial(token_stats, temperature=0.7, with_entropy=True)
  )
  expected = jax.device_get(
    whole(logits[:, None], tokens[:, None], top_ids=ids[:, None])
  )
  np.testing.assert_array_equal(stats.top_ids, ids)
  np.testing.assert_allclose(
    stats.top_log_probs, expected.top_log_probs[:, 0], atol=1e-6, rtol=1e-6
  )
  np.testing.assert_allclose(
    stats.log_probs, expected.log_probs[:, 0], atol=1e-6, rtol=1e-6
  )
  np.testing.assert_allclose(stats.entropy, expected.entropy[:, 0], atol=2e-6)
  assert (stats.log_probs <= 0).all()


@pytest.mark.parametrize('size', _SIZES)
def test_draws_by_the_cumulative_sum_in_the_order_of_the_ids(size):
  logits = _logits(size)
  law = np.exp(logits.astype(np.float64) / 0.7)
  sums = np.cumsum(law / law.sum(1, keepdims=True), axis=1)
  for seed in range(20):
    uniform = _uniform(seed)
    tokens, _ = _run(logits, uniform)
    rows = zip(sums, np.asarray(uniform), strict=True)
    expected = [np.searchsorted(row, u, side='right') for row, u in rows]
    np.testing.assert_array_equal(tokens, expected)


@pytest.mark.parametrize(('shape', 'size'), _SPLITS)
def test_the_same_tokens_however_the_columns_are_split(shape, size):
  logits, mesh = _logits(size), parallel.make_mesh(*shape)
  k = min(size, 20)  # More than a shard of the small ones holds.
  for seed in range(5):
    one = _run(logits, _uniform(seed), top_k=k)
    many = _run(logits, _uniform(seed), mesh, top_k=k)
    np.testing.assert_array_equal(many[0], one[0])
    np.testing.assert_array_equal(many[1].top_ids, one[1].top_ids)
    for name in ('log_probs', 'top_log_probs', 'entropy'):
      mine, theirs = getattr(many[1], name), getattr(one[1], name)
      np.testing.assert_allclose(mine, theirs, atol=2e-6)


@pytest.mark.parametrize('size', _SIZES)
def test_the_tiles_of_a_tpu_change_no_token(size):
  logits = _logits(size)
  for uniform in (_uniform(0), _uniform(1), None):
    one = _run(logits, uniform)
    other = _run(logits, uniform, platform='tpu')
    np.testing.assert_array_equal(other[0], one[0])
    np.testing.assert_array_equal(other[1].top_ids, one[1].top_ids)
    for name in ('log_probs', 'top_log_probs', 'entropy'):
      mine, theirs = getattr(other[1], name), getattr(one[1], name)
      np.testing.assert_allclose(mine, theirs, atol=2e-6)


@pytest.mark.parametrize('shape', [(1, 1, 1), (1, 1, 8)])
def test_greedy_takes_the_first_of_the_largest(shape):
  size = 900
  logits = _logits(size)
  logits[:, [150, 800]] = 50.0
  mesh = parallel.make_mesh(*shape, jax.devices()[: np.prod(shape)])
  tokens, stats = _run(logits, None, mesh)
  assert tokens.tolist() == [150] * _ROWS
  np.testing.assert_allclose(stats.log_probs, np.log(0.5), atol=1e-5)


@pytest.mark.parametrize('shape', [(1, 1, 1), (1, 1, 8)])
def test_what_is_forbidden_is_never_drawn_and_stays_finite(shape):
  size = 300
  logits = _logits(size)
  allowed = np.arange(size) % 100 == 7
  logits[:, ~allowed] = -np.inf
  mesh = parallel.make_mesh(*shape, jax.devices()[: np.prod(shape)])
  for uniform in (0.0, 0.5, 1 - 2.0**-24):
    tokens, stats = _run(logits, np.full(_ROWS, uniform, np.float32), mesh)
    assert allowed[np.asarray(tokens)].all()
    for leaf in jax.tree.leaves(stats):
      assert np.isfinite(leaf).all()
    assert (stats.top_log_probs[:, 3:] == LOWEST_LOG_PROB).all()
    assert (stats.top_log_probs[:, :3] > -100).all()


def test_nothing_is_recorded_unasked():
  _, stats = _run(_logits(300), _uniform(0), top_k=0)
  assert stats.top_ids is None
  assert stats.top_log_probs is None


def test_candidates_cross_and_logits_do_not():
  size, mesh = 8192, parallel.make_mesh(1, 1, 8)
  run = functools.partial(
    next_token.sample_token,
    factories.vocabulary_axes(mesh),
    temperature=1.0,
    top_k=_K,
  )
  shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((_ROWS, size), (8,))]
  place = [
    NamedSharding(mesh, PartitionSpec(None, 'tensor')),
    parallel.replicated(mesh),
  ]
  text = jax.jit(run, in_shardings=place).lower(*shapes).compile().as_text()
  crossing = [
    int(np.prod([int(n) for n in dims.split(',')]))
    for line in text.splitlines()
    if re.search(r' (all-|reduce-scatter|collective-)\S*\(', line)
    for dims in re.findall(r'[fsu]32\[([\d,]+)\]', line.split(' = ')[1])
  ]
  assert crossing
  assert max(crossing) <= _ROWS * 8 * _K
