import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.base import Rollout, TokenStats
from dppo_jax.learner import scoring
from dppo_jax.models.policy import make_policy
from dppo_jax.sampling import decode
from tests.support import factories

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
    states, routing = scoring.completion_hidden(
      *model,
      batch.tokens,
      batch.token_mask,
      prompt_length=_WIDTH,
      shared_rows=shared_rows,
    )
    assert routing is None  # Of a dense model.
    return states

  return states(batch, 1), states(batch, _GROUP)


def test_states_are_those_before_each_completion_token(model, batch, hidden):
  policy, params = model
  whole = jax.jit(policy.apply)(params, batch.tokens, batch.token_mask)
  drawn = np.asarray(batch.completion_mask)[:, _WIDTH:]
  expected = np.asarray(whole)[:, _WIDTH - 1 : -1]
  np.testing.assert_allclose(
    np.asarray(hidden[0])[drawn], expected[drawn], atol=1e-6
  )


def test_shared_prompts_give_the_same_states(batch, hidden):
  drawn = np.asarray(batch.completion_mask)[:, _WIDTH:]
  np.testing.assert_allclose(
    np.asarray(hidden[1])[drawn], np.asarray(hidden[0])[drawn], atol=1e-5
  )


def _rollout(batch):
  ids = np.zeros(len(batch.tokens), np.int32)
  return Rollout(
    tokens=batch.tokens,
    token_mask=batch.token_mask,
    completion_mask=batch.completion_mask,
    stats=batch.rollout,
    group_id=ids,
    example_id=ids,
    truncated=ids > 0,
    routes=batch.routes,
  )


def _table_score(logits, batch, **overrides):
  temperature = overrides.pop('temperature', 1.0)
  options = dict(with_entropy=False, with_hidden=False) | overrides
  return scoring.score(
    factories.table_policy(_WIDTH),
    factories.vocabulary_config(temperature=temperature),
    jnp.asarray(logits, jnp.float32),
    _rollout(batch),
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


# Rollout router replay: 32 prompts of all lengths up to 5 and 4 completions of
# each, by a sampler that records its routes.
_N, _G, _R = 32, 4, 12


@pytest.fixture(scope='module')
def routed():
  config = factories.moe_config(num_layers=2, num_experts=16)
  policy, params = make_policy(config), factories.make_params(config)
  prompts = factories.make_prompts(_N, _WIDTH)

  @functools.partial(jax.jit, static_argnums=0)
  def draw(precision, key):
    settings = factories.sampling_config(
      group_size=_G,
      max_completion_length=_R,
      precision=precision,
      with_routes=True,
    )
    axes = factories.vocabulary_axes()
    return decode.sample(policy, axes, settings, params, prompts, key)

  @functools.partial(jax.jit, static_argnums=1)
  def score(rollout, shared_rows):
    stats = scoring.score(
      policy,
      factories.vocabulary_config(),
      params,
      rollout,
      prompt_length=_WIDTH,
      shared_rows=shared_rows,
      with_entropy=False,
      with_hidden=False,
    )
    return scoring.aligned(stats, rollout.completion_mask).log_probs

  @functools.partial(jax.jit, static_argnums=1)
  def route(rollout, shared_rows):
    return scoring.completion_hidden(
      policy,
      params,
      rollout.tokens,
      rollout.token_mask,
      rollout.routes,
      prompt_length=_WIDTH,
      shared_rows=shared_rows,
    )[1]

  return types.SimpleNamespace(draw=draw, score=score, route=route)


def _free(rollout):
  return dataclasses.replace(rollout, routes=None)


def _gaps(rollout, log_probs):
  """Mean |pi - mu|, and the largest |log pi - log mu|."""
  drawn = np.asarray(rollout.completion_mask)
  mu = np.asarray(rollout.stats.log_probs)[drawn]
  pi = np.asarray(log_probs)[drawn]
  return np.abs(np.exp(pi) - np.exp(mu)).mean(), np.abs(pi - mu).max()


@pytest.mark.slow
@pytest.mark.parametrize('shared_rows', [1, _G])
@pytest.mark.parametrize('precision', ['bfloat16', 'int8'])
def test_replay_removes_mismatch(routed, precision, shared_rows):
  """What is left is that of the rounding itself, without a changed expert."""
  rollout = routed.draw(precision, jax.random.PRNGKey(3))
  free = _gaps(rollout, routed.score(_free(rollout), shared_rows))
  replayed = _gaps(rollout, routed.score(rollout, shared_rows))
  assert 0 < replayed[0] < 0.8 * free[0]
  assert replayed[1] < 0.5 * free[1]


@pytest.mark.slow
@pytest.mark.parametrize('shared_rows', [1, _G])
@pytest.mark.parametrize('replay', [True, False])
def test_cached_sampling_agrees_with_whole_sequences(
  routed, shared_rows, replay
):
  rollout = routed.draw('float32', jax.random.PRNGKey(4))
  used = rollout if replay else _free(rollout)
  assert _gaps(rollout, routed.score(used, shared_rows))[1] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize('replay', [True, False])
def test_routers_are_counted_alike_where_prompts_are_shared(routed, replay):
  """And where the last token has no routes, which predicts nothing."""
  rollout = routed.draw('float32', jax.random.PRNGKey(4))
  if replay:
    ended = np.asarray(rollout.token_mask).copy()
    ended[:, :-1] &= ~ended[:, 1:]  # The last token of each row.
    noise = np.where(ended[..., None, None], 7, np.asarray(rollout.routes))
    rollout = dataclasses.replace(rollout, routes=noise)
  else:
    rollout = _free(rollout)
  whole, shared = routed.route(rollout, 1), routed.route(rollout, _G)
  for name in ('expert_share', 'expert_probability', 'entropy'):
    np.testing.assert_allclose(
      getattr(whole, name), getattr(shared, name), atol=1e-5
    )
  np.testing.assert_allclose(whole.expert_share.sum(axis=1), 2.0, rtol=1e-5)
  if replay:
    free = routed.route(_free(rollout), 1)
    np.testing.assert_allclose(whole.expert_share, free.expert_share, atol=1e-3)


@pytest.mark.parametrize(('count', 'num_buckets'), [(1, 1), (3, 1), (3, 2)])
def test_parts_of_the_rows_are_scored_alike(count, num_buckets):
  mesh = parallel.make_mesh(1, 1, 1, jax.devices()[:1])
  rollout = factories.make_batch(3, _GROUP, _WIDTH, 4)
  seen = []

  def score_part(part):
    seen.append(part.tokens.shape)
    return TokenStats(log_probs=part.tokens[:, _WIDTH:] * 2.0)

  buckets = factories.length_buckets(
    count=num_buckets, prompt_length=_WIDTH, group_size=_GROUP
  )
  stats = scoring.by_parts(mesh, count, buckets, score_part, rollout)
  lengths = {1: {4}, 2: {2, 4}}[num_buckets]
  assert set(seen) == {(3 * _GROUP // count, _WIDTH + n) for n in lengths}
  tokens = np.where(rollout.completion_mask, rollout.tokens, 0)[:, _WIDTH:]
  got = np.where(rollout.completion_mask[:, _WIDTH:], stats.log_probs, 0)
  np.testing.assert_array_equal(got, tokens * 2.0)
