"""The loss of completions among which an environment speaks."""

import dataclasses

import jax
import numpy as np
import pytest

from dppo_jax.learner import loss as loss_lib
from dppo_jax.ops import trust_regions
from dppo_jax.ops.masking import aggregation_weights
from tests.support import factories

_WIDTH, _VOCAB = 3, factories.VOCAB_SIZE


def _columns(leaf):
  return np.asarray(leaf)[:, _WIDTH:]


def _closed(leaf, order):
  """Columns of a leaf [B, R, ...] in another order, row by row."""
  order = order.reshape(*order.shape, *[1] * (leaf.ndim - 2))
  return np.take_along_axis(np.asarray(leaf), order, axis=1)


# (rule, importance).
_OF_TURNS = [
  *((rule, 'token') for rule in trust_regions.TRUST_REGIONS),
  ('cppo', 'sequence'),
  ('cppo', 'least_prefix'),
]


@jax.jit
def _losses_of_turns(batch, logits):
  """(loss, decisions) by rule and importance: one program."""
  mask = batch.completion_mask[:, _WIDTH:]
  weights = aggregation_weights(mask, 'sequence_mean_token_mean', 1.0)
  found = {}
  for rule, importance in _OF_TURNS:
    config = factories.loss_config(
      prompt_length=_WIDTH, rule=rule, importance=importance
    )
    targets = loss_lib.make_targets(config, batch, weights)
    found[rule, importance] = loss_lib.reference_loss(config, logits, targets)
  return found


@pytest.fixture(scope='module')
def turns():
  """Losses of a mask with holes, of the same closed up, and what was drawn."""
  length = 9
  batch = factories.make_batch(4, 2, _WIDTH, length, seed=3)
  stats = dataclasses.replace(batch.rollout, entropy=-batch.rollout.log_probs)
  batch = dataclasses.replace(batch, rollout=stats)
  rng = np.random.default_rng(4)
  logits = rng.normal(size=(8, length, _VOCAB)).astype(np.float32)
  mask = np.asarray(batch.completion_mask)[:, _WIDTH:]
  holed = mask & (rng.random(mask.shape) < 0.6)
  holed[:, 0] = mask[:, 0]
  assert (mask & ~holed).sum() > 5
  order = np.argsort(~holed, axis=1, kind='stable')

  def run(arrange):
    """Losses with columns [B, R] so arranged."""

    def rearrange(leaf):
      leaf = np.asarray(leaf)
      return np.concatenate([leaf[:, :_WIDTH], arrange(_columns(leaf))], 1)

    mask = np.pad(holed, ((0, 0), (_WIDTH, 0)))

    def clear(leaf):
      kept = mask.reshape(*mask.shape, *[1] * (leaf.ndim - 2))
      return rearrange(np.where(kept, leaf, np.zeros_like(leaf)))

    of_turns = dataclasses.replace(
      batch,
      tokens=rearrange(batch.tokens),
      completion_mask=rearrange(mask),
      advantages=clear(batch.advantages),
      rollout=jax.tree.map(clear, batch.rollout),
    )
    return jax.device_get(_losses_of_turns(of_turns, arrange(logits)))

  holes, closed = run(lambda leaf: leaf), run(lambda leaf: _closed(leaf, order))
  return holes, closed, holed, order


@pytest.mark.parametrize('config', _OF_TURNS, ids=str)
def test_tokens_of_an_environment_are_as_if_they_were_not_there(turns, config):
  """A mask with holes decides and weighs like one without the columns.

  Among it: CPPO's prefix sums and its T count sampled tokens only.
  """
  holes, all_closed, holed, order = turns
  (loss, decisions), (expected, closed) = holes[config], all_closed[config]
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  inside = _closed(holed, order)
  for name in ('keep', 'divergence', 'log_probs'):
    got = _closed(getattr(decisions, name), order)
    np.testing.assert_allclose(
      got[inside], getattr(closed, name)[inside], atol=1e-6
    )
