"""The pass over the vocabulary in chunks of any size, and over devices."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.learner import loss as loss_lib
from dppo_jax.lm_head import fused_loss
from tests.support import factories, head_cases

# Without the drift, which is of a device alone: it reads gathered log-probs.
_RULES = {
  rule: head_cases.loss_config(
    rule=rule, entropy_coefficient=0.05, anchor='recomputed'
  )
  for rule in ('divergence', 'cppo', 'trm_mean')
}
_EXACT = {
  name: head_cases.loss_config(divergence=name, anchor='recomputed')
  for name in ('exact_tv', 'exact_kl')
}


@pytest.fixture(scope='module')
def shared():
  return head_cases.SharedPrograms(_RULES.values(), head_cases.moved())


@pytest.fixture(scope='module')
def bare():
  """Without what is recorded of K tokens, and a loss that reads none of it."""
  head, hidden, targets = head_cases.moved()
  anchor = targets.anchor.replace(top_ids=None, top_log_probs=None)
  config = dataclasses.replace(_RULES['cppo'], divergence='binary_tv')
  case = head, hidden, targets.replace(anchor=anchor)
  return config, head_cases.SharedPrograms([config], case)


@pytest.mark.parametrize('head_chunk_tokens', [1, 4, 26, 27, 28, 48, 1000])
def test_the_size_of_a_chunk_changes_nothing(bare, head_chunk_tokens):
  config, programs = bare
  programs.check(config, programs.one_pass(config, head_chunk_tokens))


@pytest.mark.parametrize(
  ('shape', 'rule'),
  [
    *itertools.product(
      [(1, 1, 8), (2, 2, 2), (8, 1, 1), (1, 2, 4)], ['divergence', 'cppo']
    ),
    ((2, 2, 2), 'trm_mean'),
    ((1, 2, 4), 'trm_mean'),
  ],
)
def test_eight_devices_compute_the_same(shared, shape, rule):
  """Forty columns: whole shards of 5, 10 and 20, padded to lanes of 128."""
  config = _RULES[rule]
  mesh = parallel.make_mesh(*shape)
  shared.check(config, shared.one_pass(config, 3, mesh))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _decided(divergence, head_chunk_tokens, mesh, delta, *case):
  """Decisions, without a gradient; delta is data."""
  bounds = factories.bounds(delta_low=delta, delta_high=delta)
  config = head_cases.loss_config(
    divergence=divergence, bounds=bounds, anchor='recomputed'
  )
  layout = factories.vocabulary_config(
    mesh,
    head_chunk_tokens=head_chunk_tokens,
    temperature=head_cases.TEMPERATURE,
  )
  loss = loss_lib.make_head_loss(config)
  return fused_loss.head_loss(layout, loss, *case)[1]


def _certified(delta, head_chunk_tokens, mesh=None):
  """(decisions, the exact ones, share of tokens that K decide)."""
  case = head_cases.moved()
  got, exact = (
    jax.device_get(_decided(name, chunk, mesh, delta, *case))
    for name, chunk in (('certified_tv', head_chunk_tokens), ('exact_tv', 24))
  )
  decided = got.diagnostics['certificate/decided'][case[2].mask]
  return got, exact, np.mean(decided)


@pytest.mark.parametrize(
  ('delta', 'head_chunk_tokens'), [(0.9, 5), (0.12, 24), (0.07, 24), (0.07, 5)]
)
def test_a_certified_mask_is_the_exact_one(delta, head_chunk_tokens):
  """None, a few and most of the tokens of a chunk are measured."""
  got, exact, decided = _certified(delta, head_chunk_tokens)
  np.testing.assert_array_equal(got.keep, exact.keep)
  apart = exact.divergence - got.divergence
  assert (apart > -1e-6).all()  # A lower bound.
  if delta == 0.9:
    assert decided == 1
    assert (apart > 1e-3).any()
  else:
    assert 0 < decided < 1
    measured = got.diagnostics['certificate/decided'] == 0
    np.testing.assert_allclose(apart[measured], 0.0, atol=1e-6)


def test_eight_devices_certify_the_same():
  mesh = parallel.make_mesh(2, 1, 4)
  got, exact, decided = _certified(0.07, 3, mesh)
  np.testing.assert_array_equal(got.keep, exact.keep)
  assert 0 < decided < 1


@pytest.fixture(scope='module', params=[37, 3])
def short(request):
  """Also fewer columns than devices, and K above a shard's."""
  size = request.param
  head, hidden, targets = head_cases.moved()
  anchor = targets.anchor
  targets = targets.replace(
    tokens=targets.tokens % size,
    anchor=anchor.replace(top_ids=anchor.top_ids % size),
    anchor_head=targets.anchor_head[:size],
  )
  return head_cases.SharedPrograms(
    _EXACT.values(), (head[:size], hidden, targets)
  )


@pytest.mark.parametrize('divergence', _EXACT)
def test_a_vocabulary_that_does_not_divide(short, divergence):
  config = _EXACT[divergence]
  one = short.one_pass(config)
  eight = short.one_pass(config, mesh=parallel.make_mesh(1, 1, 8))
  assert eight[1][0].shape == one[1][0].shape
  np.testing.assert_allclose(eight[0][0], one[0][0], rtol=1e-5)
  assert factories.relative_distance(eight[1], one[1]) <= 1e-6
