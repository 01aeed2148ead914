import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import TokenStats
from dppo_jax.learner import scoring
from dppo_jax.models.policy import make_policy
from dppo_jax.sampling import decode, weight_rounding
from tests.support import factories, toy_policy

_PROMPTS, _WIDTH, _GROUP, _LENGTH = 6, 5, 4, 8
_ROWS = _PROMPTS * _GROUP
_KEY = jax.random.PRNGKey(11)
_AXES = factories.vocabulary_axes()


@pytest.fixture(scope='module')
def model():
  config = factories.transformer_config(num_layers=1, qkv_bias=True)
  return make_policy(config), factories.make_params(config)


@pytest.fixture(scope='module')
def prompts():
  return factories.make_prompts(_PROMPTS, _WIDTH)


@pytest.fixture(scope='module')
def compiled(model):
  """Overrides of the sampling config -> a compiled (params, prompts, key)."""

  @functools.cache
  @functools.cache
  def compile_sample(**overrides):
    config = factories.sampling_config(**overrides)
    return jax.jit(functools.partial(decode.sample, model[0], _AXES, config))

  return compile_sample


@pytest.fixture(scope='module')
def base(compiled, model, prompts):
  return compiled()(model[1], prompts, _KEY)


@pytest.fixture(scope='module')
def cold(compiled, model, prompts):
  """Temperature .7, the whole law recorded."""
  overrides = dict(temperature=0.7, top_k=factories.VOCAB_SIZE)
  return compiled(**overrides)(model[1], prompts, _KEY)


@pytest.fixture(scope='module')
def scorer(model):
  """Stats of the trainer over the whole vocabulary, from whole sequences."""

  @functools.partial(jax.jit, static_argnums=(2, 3))
  def score(params, rollout, temperature, shared_rows):
    return scoring.score(
      model[0],
      factories.vocabulary_config(temperature=temperature),
      params,
      rollout,
      prompt_length=_WIDTH,
      shared_rows=shared_rows,
      with_entropy=True,
      with_hidden=False,
    )

  def score_all(rollout, temperature=1.0, shared_rows=1):
    shape = (*rollout.tokens.shape, factories.VOCAB_SIZE)
    ids = np.broadcast_to(np.arange(shape[-1]), shape)
    stats = TokenStats(log_probs=rollout.stats.log_probs, top_ids=ids)
    rollout = dataclasses.replace(rollout, stats=stats)
    return score(model[1], rollout, temperature, shared_rows)

  return score_all


def _mean_abs(log_probs, expected, mask):
  moved = np.exp(np.asarray(expected)) - np.exp(np.asarray(log_probs))
  return np.abs(moved[mask]).mean()


@pytest.mark.parametrize(
  ('name', 'temperature', 'shared_rows'),
  [('base', 1.0, 1), ('base', 1.0, _GROUP), ('cold', 0.7, 1)],
)
def test_recorded_log_probs_are_the_trainers(
  name, temperature, shared_rows, request, model, scorer
):
  """Through padding, prefill, cache and sharing."""
  rollout = request.getfixturevalue(name)
  stats = scorer(rollout, temperature, shared_rows)
  mask = np.asarray(rollout.completion_mask)[:, _WIDTH:]
  assert mask.sum() > 50
  recorded = np.asarray(rollout.stats.log_probs)[:, _WIDTH:]
  trained = np.asarray(stats.log_probs)
  assert _mean_abs(recorded, trained, mask) <= 1e-6
  assert np.abs(recorded - trained)[mask].max() <= 1e-4
  assert recorded.max() <= 0
  assert trained[mask].max() <= 0
  assert recorded[mask].max() < 0
  assert not recorded[~mask].any()

  entropy = np.asarray(rollout.stats.entropy)[:, _WIDTH:]
  np.testing.assert_allclose(
    entropy[mask], np.asarray(stats.entropy)[mask], atol=1e-4
  )
  assert not entropy[~mask].any()


def test_temperature_is_part_of_the_recorded_law(cold, model, scorer):
  """What holds at .7 fails at 1: the test above can tell."""
  stats = scorer(cold, 1.0, 1)
  mask = np.asarray(cold.completion_mask)[:, _WIDTH:]
  recorded = cold.stats.log_probs[:, _WIDTH:]
  assert _mean_abs(recorded, stats.log_probs, mask) > 1e-2


def test_top_k_are_the_true_top_k(base, model, scorer):
  law = np.asarray(scorer(base, 1.0, 1).top_log_probs)
  mask = np.asarray(base.completion_mask)[:, _WIDTH:]
  expected = np.argsort(-law, axis=-1)[..., :5]
  ids = np.asarray(base.stats.top_ids)[:, _WIDTH:]
  values = np.asarray(base.stats.top_log_probs)[:, _WIDTH:]
  np.testing.assert_array_equal(ids[mask], expected[mask])
  np.testing.assert_allclose(
    values[mask], np.take_along_axis(law, expected, -1)[mask], atol=1e-4
  )
  assert ids.dtype == np.int32
  assert not ids[~mask].any()
  assert not values[~mask].any()


def test_the_whole_vocabulary_sums_to_one(cold):
  mask = np.asarray(cold.completion_mask)
  mass = np.exp(np.asarray(cold.stats.top_log_probs)).sum(-1)
  np.testing.assert_allclose(mass[mask], 1.0, atol=1e-6)
  drawn = np.asarray(cold.stats.top_ids) == np.asarray(cold.tokens)[..., None]
  np.testing.assert_array_equal(drawn[mask].sum(-1), 1)
  listed = np.asarray(cold.stats.top_log_probs)[drawn & mask[..., None]]
  np.testing.assert_allclose(
    listed, np.asarray(cold.stats.log_probs)[mask], atol=1e-6
  )


def test_layout(base, prompts):
  tokens = np.asarray(base.tokens)
  assert tokens.shape == (_ROWS, _WIDTH + _LENGTH)
  assert tokens.dtype == np.int32
  for name, column in (
    ('tokens', prompts.tokens),
    ('token_mask', prompts.mask),
  ):
    np.testing.assert_array_equal(
      np.asarray(getattr(base, name))[:, :_WIDTH],
      np.repeat(np.asarray(column), _GROUP, axis=0),
    )
  groups = np.repeat(np.arange(_PROMPTS), _GROUP)
  np.testing.assert_array_equal(base.group_id, groups)
  np.testing.assert_array_equal(base.example_id, 100 + groups)
  mask = np.asarray(base.completion_mask)
  assert not mask[:, :_WIDTH].any()
  np.testing.assert_array_equal(
    np.asarray(base.token_mask)[:, _WIDTH:], mask[:, _WIDTH:]
  )
  assert base.stats.log_probs.shape == tokens.shape
  assert base.stats.top_ids.shape == (*tokens.shape, 5)


def test_end_token_ends_a_row(base):
  tokens = np.asarray(base.tokens)[:, _WIDTH:]
  mask = np.asarray(base.completion_mask)[:, _WIDTH:]
  truncated = np.asarray(base.truncated)
  assert 0 < truncated.sum() < _ROWS
  for row in range(_ROWS):
    ends = np.flatnonzero(tokens[row] == factories.EOS_ID)
    assert truncated[row] == (len(ends) == 0)
    length = _LENGTH if truncated[row] else ends[0] + 1
    assert mask[row].tolist() == [r < length for r in range(_LENGTH)]
    assert (tokens[row, length:] == factories.PAD_ID).all()


def test_same_key_same_tokens(compiled, model, prompts, base):
  again = compiled()(model[1], prompts, _KEY)
  jax.tree.map(np.testing.assert_array_equal, again, base)
  other = compiled()(model[1], prompts, jax.random.PRNGKey(12))
  assert (np.asarray(other.tokens) != np.asarray(base.tokens)).mean() > 0.2


def test_a_group_does_not_repeat_itself(base):
  groups = np.asarray(base.tokens).reshape(_PROMPTS, _GROUP, -1)
  assert all(len(np.unique(group, axis=0)) > 1 for group in groups)


def test_rows_do_not_depend_on_other_prompts(compiled, model, prompts, base):
  tokens = prompts.tokens.at[2].set((prompts.tokens[2] + 3) % 24)
  mask = prompts.mask.at[2].set(jnp.arange(_WIDTH) >= 1)
  changed = dataclasses.replace(prompts, tokens=tokens, mask=mask)
  got = compiled()(model[1], changed, _KEY)
  same = np.asarray(base.group_id) != 2
  np.testing.assert_array_equal(
    np.asarray(got.tokens)[same], np.asarray(base.tokens)[same]
  )
  np.testing.assert_allclose(
    np.asarray(got.stats.log_probs)[same],
    np.asarray(base.stats.log_probs)[same],
    atol=1e-6,
  )
  columns = np.s_[~same, _WIDTH:]
  assert (np.asarray(got.tokens)[columns] != base.tokens[columns]).any()


def test_frequencies_follow_the_law(cold):
  """First tokens of one prompt, each scored by the law it was drawn from."""
  mask = np.asarray(cold.completion_mask)
  law = np.exp(np.asarray(cold.stats.top_log_probs)[mask])
  ids = np.asarray(cold.stats.top_ids)[mask]
  drawn = (ids == np.asarray(cold.tokens)[mask][:, None]).argmax(-1)
  # Mean rank of what was drawn against its expectation, in deviations.
  ranks = np.arange(law.shape[1])
  mean = law @ ranks
  deviation = np.sqrt((law @ ranks**2 - mean**2).sum())
  assert abs((drawn - mean).sum()) < 4 * deviation


def test_rounding_of_the_sampler_grows_the_mismatch(
  compiled, model, prompts, scorer
):
  """f32 < bf16 < int8 < fp8 < int4, by what the trainer says of the tokens."""

  @jax.jit
  def ladder(params):
    names = weight_rounding.PRECISIONS
    return [weight_rounding.round_params(params, name) for name in names]

  mismatches = []
  for rounded in ladder(model[1]):
    rollout = compiled()(rounded, prompts, _KEY)
    stats = scorer(rollout, 1.0, 1)
    mask = np.asarray(rollout.completion_mask)[:, _WIDTH:]
    recorded = rollout.stats.log_probs[:, _WIDTH:]
    mismatches.append(_mean_abs(recorded, stats.log_probs, mask))
  assert mismatches[0] <= 1e-6
  assert (np.diff(mismatches) > 0).all(), mismatches
  assert mismatches[1] > 1e-5


_STEPS_RUN = []
_LAW = np.array([0.02, 0.02, 0.6, 0.3, 0.02, 0.02, 0.01, 0.01], np.float32)


@pytest.fixture(scope='module')
def toy(prompts):
  """(end_after, overrides of the config) -> Rollout."""

  @functools.cache
  @functools.cache
  def compile_sample(**overrides):
    config = factories.sampling_config(**{'top_k': 2, **overrides})
    return jax.jit(
      functools.partial(
        decode.sample, toy_policy.make(_STEPS_RUN.append), _AXES, config
      )
    )

  def sample(end_after, law=_LAW, **overrides):
    _STEPS_RUN.clear()
    params = {'head': np.log(law)[None], 'end_after': end_after}
    rollout = compile_sample(**overrides)(params, prompts, _KEY)
    jax.effects_barrier()
    return rollout

  return sample


@pytest.mark.parametrize(
  ('end_after', 'decoded'),
  [
    (1, []),
    (3, [0, 1]),
    (8, [0, 1, 2, 3, 4, 5, 6]),
    # The last token is drawn but never run: nothing would read its state.
    (99, [0, 1, 2, 3, 4, 5, 6]),
  ],
)
def test_loop_stops_when_every_row_has_ended(toy, end_after, decoded):
  rollout = toy(end_after, toy_policy.FLAT)
  assert sorted(_STEPS_RUN) == decoded
  mask = np.asarray(rollout.completion_mask)[:, _WIDTH:]
  assert (mask.sum(1) == min(end_after, _LENGTH)).all()
  np.testing.assert_array_equal(rollout.truncated, end_after > _LENGTH)
  # A law without choice: probability one, entropy zero.
  if end_after <= _LENGTH:
    last = _WIDTH + end_after - 1
    np.testing.assert_array_equal(rollout.stats.log_probs[:, last], 0.0)
    np.testing.assert_array_equal(rollout.stats.entropy[:, last], 0.0)


def test_length_limit_does_not_change_the_draws(toy):
  """A draw depends on (key, row, column) alone."""
  long = np.asarray(toy(99, toy_policy.FLAT).tokens)
  short = toy(99, toy_policy.FLAT, max_completion_length=3).tokens
  np.testing.assert_array_equal(short, long[:, : _WIDTH + 3])
  drawn = long[:, _WIDTH:]
  # Neither columns nor rows repeat one draw.
  assert set(np.unique(drawn)) == {2, 3, 4, 5, 6, 7}
  assert not (drawn[:, :1] == drawn[:, 1:]).all(1).any()
  assert len(np.unique(drawn, axis=0)) == _ROWS


def test_nucleus_restricts_what_is_drawn(toy):
  rollout = toy(99, top_p=0.8)
  tokens = np.asarray(rollout.tokens)[:, _WIDTH:]
  assert set(np.unique(tokens)) == {2, 3}
  expected = np.log(np.where(tokens == 2, 2 / 3, 1 / 3))
  np.testing.assert_allclose(
    rollout.stats.log_probs[:, _WIDTH:], expected, atol=1e-6
  )
  expected = -(np.log(2 / 3) * 2 / 3 + np.log(1 / 3) / 3)
  np.testing.assert_allclose(
    rollout.stats.entropy[:, _WIDTH:], expected, atol=1e-6
  )


def test_greedy_takes_the_most_likely_and_records_its_log_prob(toy):
  rollout = toy(5, greedy=True, top_k=0)
  assert rollout.stats.top_ids is None
  assert rollout.stats.top_log_probs is None
  tokens = np.asarray(rollout.tokens)[:, _WIDTH:]
  np.testing.assert_array_equal(tokens, [[2, 2, 2, 2, 1, 0, 0, 0]] * _ROWS)
  expected = [[np.log(0.6)] * 4 + [0.0] * 4] * _ROWS
  np.testing.assert_allclose(
    rollout.stats.log_probs[:, _WIDTH:], expected, atol=1e-6
  )


def test_precision_of_the_config_rounds_the_parameters(toy):
  rollout = toy(99, precision='fp8', top_k=8)
  rounded = weight_rounding.round_params({'head': np.log(_LAW)[None]}, 'fp8')[
    'head'
  ]
  ids = np.asarray(rollout.stats.top_ids)[0, _WIDTH]
  law = np.asarray(jax.nn.log_softmax(rounded[0]))
  assert np.abs(law - np.log(_LAW)).max() > 1e-2
  np.testing.assert_allclose(
    rollout.stats.top_log_probs[0, _WIDTH], law[ids], atol=1e-5
  )


def test_any_of_several_ends_ends_a_row(compiled, model, prompts):
  ends = (factories.EOS_ID, 7, 13)
  rollout = compiled(eos_ids=ends)(model[1], prompts, _KEY)
  ended_by = set()
  for row in range(_ROWS):
    mask = np.asarray(rollout.completion_mask)[row]
    drawn = np.asarray(rollout.tokens)[row][mask].tolist()
    assert not set(drawn[:-1]) & set(ends)
    assert (drawn[-1] in ends) == (not rollout.truncated[row])
    ended_by |= {drawn[-1]} & set(ends)
  assert len(ended_by) >= 2


def test_stop_tokens_end_a_row_like_end_tokens(compiled, model, prompts):
  # The last id lies beyond the vocabulary: no token is it.
  ends = compiled(eos_ids=(factories.EOS_ID, 7, 13))(model[1], prompts, _KEY)
  stops = compiled(stop_ids=(7, 13, 5000))(model[1], prompts, _KEY)
  chex.assert_trees_all_equal(ends, stops)
  plain = compiled()(model[1], prompts, _KEY)
  assert (plain.completion_mask != stops.completion_mask).any()


def _routed(prompts, **overrides):
  """A small model with experts, and its compiled sampler."""
  config = factories.moe_config(num_layers=2, **overrides)
  policy, params = make_policy(config), factories.make_params(config)

  def sample(with_routes):
    settings = factories.sampling_config(with_routes=with_routes)
    draw = functools.partial(decode.sample, policy, _AXES, settings)
    return functools.partial(jax.jit(draw), params, prompts, _KEY)

  return policy, params, sample


def test_routes_are_recorded_where_they_are_asked_for(prompts):
  policy, params, sample = _routed(prompts)
  rollout = sample(True)()
  tokens, mask = rollout.tokens, np.asarray(rollout.token_mask)
  assert rollout.routes.shape == (*tokens.shape, 2, 2)
  _, routing = jax.jit(policy.apply_routed)(params, tokens, mask, None)
  ran = mask.copy()  # Of its last token a sampler need know nothing.
  ran[:, :-1] &= mask[:, 1:]
  ran[:, -1] = False
  same = np.asarray(routing.routes[0]) == np.asarray(rollout.routes)
  assert same[ran].mean() > 0.99  # Ties aside.
  assert jax.eval_shape(sample(False)).routes is None


@pytest.mark.parametrize(
  ('num_experts', 'dtype'), [(256, 'uint8'), (257, 'uint16')]
)
def test_routes_are_no_wider_than_their_experts(prompts, num_experts, dtype):
  _, _, sample = _routed(prompts, num_experts=num_experts)
  assert jax.eval_shape(sample(True)).routes.dtype == dtype


def test_a_dense_model_has_no_routes(compiled, model, prompts):
  sample = compiled(with_routes=True)
  assert jax.eval_shape(sample, model[1], prompts, _KEY).routes is None
