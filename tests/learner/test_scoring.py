import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import TokenStats
from dppo_jax.learner import scoring
from dppo_jax.models.policy import make_policy
from tests import factories

_WIDTH, _GROUP = 5, 2


@pytest.fixture(scope='module')
def batch():
  return factories.make_batch(3, _GROUP, _WIDTH, 4)


@pytest.fixture(scope='module')
def model():
  config = factories.transformer_config()
  return make_policy(config), factories.make_params(config)


@pytest.fixture(scope='module')
def hidden(model, batch):
  """States of the completion columns, by rows and by shared prompts."""

  @functools.partial(jax.jit, static_argnums=1)
  def states(batch, shared_rows):
    return scoring.completion_hidden(
      *model,
      batch.tokens,
      batch.token_mask,
      prompt_length=_WIDTH,
      shared_rows=shared_rows,
    )

  return states(batch, 1), states(batch, _GROUP)


def test_states_are_those_before_each_completion_token(model, batch, hidden):
  policy, params = model
  whole = jax.jit(policy.apply)(params, batch.tokens, batch.token_mask)
  np.testing.assert_allclose(hidden[0], whole[:, _WIDTH - 1 : -1], atol=1e-6)


def test_shared_prompts_give_the_same_states(batch, hidden):
  drawn = np.asarray(batch.completion_mask)[:, _WIDTH:]
  np.testing.assert_allclose(
    np.asarray(hidden[1])[drawn], np.asarray(hidden[0])[drawn], atol=1e-5
  )


def _table_score(logits, batch, **overrides):
  temperature = overrides.pop('temperature', 1.0)
  options = dict(with_entropy=False, with_hidden=False) | overrides
  return scoring.score(
    factories.table_policy(_WIDTH),
    factories.vocabulary_config(temperature=temperature),
    jnp.asarray(logits, jnp.float32),
    batch,
    prompt_length=_WIDTH,
    shared_rows=1,
    **options,
  )


@pytest.mark.parametrize('temperature', [1.0, 0.5])
def test_score_is_a_log_softmax_at_the_recorded_ids(batch, temperature):
  rows, columns = batch.tokens[:, _WIDTH:].shape
  logits = np.random.default_rng(0).normal(size=(rows, columns, 24))
  got = _table_score(logits, batch, temperature=temperature, with_entropy=True)
  law = logits / temperature
  law = law - np.log(np.exp(law).sum(-1, keepdims=True))
  tokens = batch.tokens[:, _WIDTH:, None]
  ids = batch.rollout.top_ids[:, _WIDTH:]
  np.testing.assert_allclose(
    got.log_probs, np.take_along_axis(law, tokens, -1)[..., 0], atol=1e-5
  )
  np.testing.assert_array_equal(got.top_ids, ids)
  np.testing.assert_allclose(
    got.top_log_probs, np.take_along_axis(law, ids, -1), atol=1e-5
  )
  np.testing.assert_allclose(
    got.entropy, -(np.exp(law) * law).sum(-1), atol=1e-5
  )


def test_score_gives_what_was_recorded_and_asked_for(batch):
  rows, columns = batch.tokens[:, _WIDTH:].shape
  bare = TokenStats(log_probs=batch.rollout.log_probs)
  got = _table_score(
    np.zeros((rows, columns, 24)), dataclasses.replace(batch, rollout=bare)
  )
  assert got.top_ids is None
  assert got.top_log_probs is None
  assert got.entropy is None
  np.testing.assert_allclose(got.log_probs, -np.log(24.0), rtol=1e-6)


def test_completion_columns(batch):
  got = scoring.completion_columns(batch.rollout, _WIDTH)
  assert got.log_probs.shape == (6, 4)
  assert got.entropy is None
  np.testing.assert_array_equal(got.top_ids, batch.rollout.top_ids[:, _WIDTH:])


def test_aligned_stats_stand_where_their_tokens_stand():
  mask = jnp.array([[0, 0, 1, 1, 0], [0, 0, 1, 1, 1]], bool)
  stats = TokenStats(
    log_probs=jnp.array([[-1.0, -2.0, jnp.nan], [-3.0, -4.0, -5.0]]),
    top_ids=jnp.arange(1, 7).reshape(2, 3, 1),
    top_log_probs=-jnp.arange(1.0, 7.0).reshape(2, 3, 1),
  )
  got = scoring.aligned(stats, mask)
  assert got.log_probs.tolist() == [[0, 0, -1, -2, 0], [0, 0, -3, -4, -5]]
  assert got.top_ids[..., 0].tolist() == [[0, 0, 1, 2, 0], [0, 0, 4, 5, 6]]
  assert got.top_log_probs[..., 0].tolist() == [
    [0, 0, -1, -2, 0],
    [0, 0, -4, -5, -6],
  ]
  assert got.entropy is None


def test_aligning_undoes_taking_the_columns(batch):
  columns = scoring.completion_columns(batch.rollout, _WIDTH)
  got = scoring.aligned(columns, jnp.asarray(batch.completion_mask))
  jax.tree.map(np.testing.assert_array_equal, got, batch.rollout)
