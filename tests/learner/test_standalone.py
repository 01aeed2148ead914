import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import Batch, TokenStats
from dppo_jax.learner import standalone
from dppo_jax.learner.loss_config import LossConfig
from dppo_jax.ops import trust_regions
from tests.support import factories

_COLUMNS, _WIDTH = 6, 5


@pytest.fixture(scope='module')
def batch():
  made = factories.make_batch(2, 2, 2, _COLUMNS - 2)
  return jax.tree.map(jnp.asarray, made)


@pytest.fixture(scope='module')
def weights():
  """Head [V, D] and states [B, T, D]."""
  rng = np.random.default_rng(3)
  head = rng.normal(size=(factories.VOCAB_SIZE, _WIDTH))
  hidden = rng.normal(size=(4, _COLUMNS, _WIDTH))
  return jnp.asarray(head, jnp.float32), jnp.asarray(hidden, jnp.float32)


def test_nothing_is_switched_on_that_was_not_asked_for():
  config = standalone.plain_config('none', 'binary_tv')
  assert config.bounds == trust_regions.open_thresholds()
  narrow = standalone.plain_config(
    'divergence', 'topk_tv', delta_low=0.1, ratio_cap=5.0
  )
  assert narrow.bounds == dataclasses.replace(config.bounds, delta_low=0.1)
  assert narrow.ratio_cap == 5.0
  names = {field.name for field in dataclasses.fields(LossConfig)}
  assert set(vars(narrow)) == names


@pytest.mark.parametrize('divergence', ['binary_kl', 'topk_tv', 'exact_tv'])
def test_logits_and_hidden_states_give_the_same(batch, weights, divergence):
  """Loss, metrics and the gradients of both weights."""
  head, hidden = weights
  options = dict(delta_low=0.05, delta_high=0.05, temperature=0.7)
  config = standalone.plain_config('divergence', divergence, **options)
  anchor_head = anchor_logits = None
  if divergence == 'exact_tv':
    anchor_head = 1.3 * head
    anchor_logits = hidden @ anchor_head.T
    rollout = dataclasses.replace(batch.rollout, hidden=hidden)
    batch = dataclasses.replace(batch, rollout=rollout)

  def plain(head, hidden):
    return standalone.loss_from_logits(
      config, hidden @ head.T, batch, anchor_logits=anchor_logits
    )

  def fused(head, hidden):
    return standalone.loss_from_hidden(
      config,
      head,
      hidden,
      batch,
      anchor_head=anchor_head,
      head_chunk_tokens=5,
    )

  ((expected, metrics), gradients), ((got, mine), fused_gradients) = (
    jax.jit(jax.value_and_grad(fn, (0, 1), has_aux=True))(head, hidden)
    for fn in (plain, fused)
  )
  masked = float(metrics['trust_region/fraction_masked'])
  assert 0 < masked < 1
  np.testing.assert_allclose(
    mine['trust_region/fraction_masked'], masked, rtol=1e-6
  )
  np.testing.assert_allclose(got, expected, rtol=1e-5)
  assert factories.relative_distance(fused_gradients, gradients) < 1e-5


@pytest.mark.parametrize(
  ('aggregation', 'expected'),
  [('token_mean', 2.0), ('sequence_mean_token_mean', 7 / 3)],
)
def test_the_loss_is_the_named_mean(aggregation, expected):
  """-r A log pi at r = 1: log pi is -1 or -3, in sequences of 3 and 1."""
  mask = jnp.array([[1, 1, 1], [1, 0, 0]], bool)
  log_pi = jnp.array([[-1.0, -1.0, -3.0], [-3.0, 0.0, 0.0]])
  batch = Batch(
    tokens=jnp.zeros((2, 3), jnp.int32),
    token_mask=mask,
    completion_mask=mask,
    advantages=mask * 1.0,
    rollout=TokenStats(log_probs=jnp.where(mask, log_pi, 0.0)),
  )
  logits = jnp.stack([log_pi, jnp.log1p(-jnp.exp(log_pi - 1e-6))], axis=-1)
  loss, metrics = standalone.loss_from_logits(
    standalone.plain_config('none', 'binary_tv'),
    logits,
    batch,
    aggregation=aggregation,
  )
  np.testing.assert_allclose(loss, expected, rtol=1e-4)
  assert float(metrics['mismatch/mean_abs']) < 1e-5
