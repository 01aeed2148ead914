import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import TokenStats
from dppo_jax.lm_head import chunked_pass
from dppo_jax.lm_head.inputs import HeadLoss, Targets
from tests.support import factories

_SIZE = 12


def _case(rows=3, length=4):
  rng = np.random.default_rng(0)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  mask = jnp.asarray(np.arange(length) < np.array([[4], [1], [2]]))
  targets = Targets(
    tokens=jnp.asarray(rng.integers(0, _SIZE, (rows, length)), jnp.int32),
    mask=mask,
    anchor=TokenStats(log_probs=jnp.zeros((rows, length))),
    context=mask.astype(jnp.float32),
  )
  return normal(_SIZE, 5), normal(rows, length, 5), targets


def _run(
  loss_from_stats, *, needs_full_sequence, head_chunk_tokens=2, wrt='both'
):
  loss = HeadLoss(
    loss_from_stats=loss_from_stats,
    needs_full_sequence=needs_full_sequence,
  )
  config = factories.vocabulary_config(head_chunk_tokens=head_chunk_tokens)
  run = functools.partial(
    chunked_pass.run_on_device,
    config,
    loss,
    _SIZE,
    wrt=wrt,
  )
  return jax.jit(run)(*_case())


def _linear(context, stats, divergence):
  del divergence
  return jnp.sum(stats.log_probs * context), stats


def _of_the_whole_response(context, stats, divergence):
  """Every token's slope is the sum of the log-probs of its response."""
  del divergence
  total = jnp.sum(stats.log_probs * context, axis=1)
  return jnp.sum(total**2), stats


def test_a_loss_of_whole_responses_needs_them_first():
  """Asked chunk by chunk it gets slopes of what was known by then."""
  _, _, right = _run(_of_the_whole_response, needs_full_sequence=True)
  _, _, one_chunk = _run(
    _of_the_whole_response, needs_full_sequence=False, head_chunk_tokens=99
  )
  _, _, wrong = _run(_of_the_whole_response, needs_full_sequence=False)
  assert factories.relative_distance(right, one_chunk) < 1e-6
  assert factories.relative_distance(wrong, right) > 1e-2


def test_a_loss_of_tokens_needs_one_pass_only():
  first = _run(_linear, needs_full_sequence=False)
  second = _run(_linear, needs_full_sequence=True)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-6), first, second
  )


def test_without_gradients_the_loss_is_the_same():
  value, record, nothing = _run(_linear, needs_full_sequence=False, wrt='none')
  expected, expected_record, _ = _run(_linear, needs_full_sequence=False)
  assert nothing == (None, None)
  assert float(value) == pytest.approx(float(expected), rel=1e-6)
  np.testing.assert_allclose(
    record.log_probs, expected_record.log_probs, rtol=1e-6
  )


def test_masked_tokens_have_no_stats_and_no_gradient():
  _, record, (_, d_hidden) = _run(_linear, needs_full_sequence=False)
  mask = np.asarray(_case()[2].mask)
  assert (np.asarray(record.log_probs)[mask] < 0).all()
  assert not np.asarray(record.log_probs)[~mask].any()
  assert not np.asarray(d_hidden)[~mask].any()


def test_a_frozen_head_costs_no_gradient():
  value, _, (d_head, d_hidden) = _run(
    _linear, needs_full_sequence=False, wrt='hidden'
  )
  expected, _, (_, both) = _run(_linear, needs_full_sequence=False)
  assert d_head is None
  assert float(value) == pytest.approx(float(expected), rel=1e-6)
  np.testing.assert_allclose(d_hidden, both, rtol=1e-6)
