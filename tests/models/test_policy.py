import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.models import cpu_bfloat16
from dppo_jax.models import policy as policy_lib
from dppo_jax.models.policy import make_policy
from tests.support import factories

_PROMPTS, _WIDTH, _GROUP, _LENGTH = 3, 5, 2, 4

# Every pair of values of the first three; the rest once.
_VARIANTS = [
  dict(qk_norm=True, qkv_bias=False, tied_head=True, remat='none'),
  dict(qk_norm=True, qkv_bias=True, tied_head=False, remat='none'),
  dict(qk_norm=False, qkv_bias=False, tied_head=False, remat='full'),
  dict(qk_norm=False, qkv_bias=True, tied_head=True, scan_unroll=2),
  # Experts: everywhere, in every second layer, in all layers but the first.
  dict(num_experts=6),
  dict(num_layers=4, num_experts=6, decoder_sparse_step=2, remat='full'),
  dict(num_layers=2, num_experts=6, mlp_only_layers=(0,)),
]


def test_positions_count_real_tokens():
  mask = jnp.array([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]], bool)
  positions = policy_lib.positions_of(mask)
  assert positions.dtype == jnp.int32
  assert positions.tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2]]


def test_segments_hide_padding():
  got = policy_lib.segments_of(jnp.array([[False, True, True]]))
  assert got.dtype == jnp.int32
  assert got.tolist() == [[0, 1, 1]]


@pytest.fixture(scope='module')
def prompts():
  return factories.make_prompts(_PROMPTS, _WIDTH)


@pytest.fixture(scope='module')
def completions():
  rng = np.random.default_rng(7)
  shape = (_PROMPTS * _GROUP, _LENGTH)
  return rng.integers(0, factories.VOCAB_SIZE, shape).astype(np.int32)


def _grouped(policy, params, prompts, prompt_mask, completions):
  return policy.apply_grouped_routed(
    params, prompts, prompt_mask, completions, None, None
  )[0]


def _whole(prompts, completions):
  """[B, T] tokens and mask of every row on its own."""
  group = completions.shape[0] // prompts.tokens.shape[0]
  tokens = np.repeat(np.asarray(prompts.tokens), group, axis=0)
  mask = np.repeat(np.asarray(prompts.mask), group, axis=0)
  return (
    np.concatenate([tokens, completions], axis=1),
    np.concatenate([mask, np.ones_like(completions, bool)], axis=1),
  )


@pytest.mark.parametrize(
  ('variant', 'platform'),
  [(variant, 'cpu') for variant in _VARIANTS]
  + [(_VARIANTS[0], 'gpu'), (_VARIANTS[-1], 'gpu')],
  ids=str,
)
def test_three_ways_to_the_same_logits(
  variant, platform, prompts, completions, monkeypatch
):
  # Whether layers are unrolled to decode follows from the platform.
  monkeypatch.setattr(cpu_bfloat16, 'platform_of', lambda mesh: platform)
  config = factories.transformer_config(**variant)
  policy = make_policy(config)

  @jax.jit
  def three_ways(params):
    whole = policy.apply(params, *_whole(prompts, completions))
    grouped = _grouped(
      policy, params, prompts.tokens, prompts.mask, completions
    )
    state, cache = policy.prefill(params, prompts, _GROUP, _LENGTH)
    weights = policy.for_decoding(params)

    def step(cache, column):
      state, cache = policy.decode(
        weights, cache, jnp.asarray(completions)[:, column], column
      )
      return cache, state

    _, states = jax.lax.scan(step, cache, jnp.arange(_LENGTH))
    first = jnp.repeat(state, _GROUP, axis=0)[:, None]
    decoded = jnp.concatenate([first, states.swapaxes(0, 1)], axis=1)
    return tuple(policy.logits(params, x) for x in (whole, grouped, decoded))

  whole, grouped, decoded = three_ways(factories.make_params(config))
  # The state of the last prompt token predicts the first completion token.
  expected = whole[:, _WIDTH - 1 :]
  np.testing.assert_allclose(grouped, expected[:, :-1], atol=1e-5)
  np.testing.assert_allclose(decoded, expected, atol=1e-5)


@pytest.fixture(scope='module')
def model():
  config = factories.transformer_config()
  policy = make_policy(config)
  return policy, factories.make_params(config), jax.jit(policy.apply)


def test_left_padding_changes_nothing(model):
  _, params, apply = model
  tokens = factories.make_prompts(1, 6).tokens
  alone = apply(params, tokens, jnp.ones((1, 6), bool))
  padded = jnp.pad(tokens, ((0, 0), (3, 0)), constant_values=9)
  mask = jnp.arange(9)[None] >= 3
  got = apply(params, padded, mask)
  np.testing.assert_allclose(got[:, 3:], alone, atol=1e-5)
  # What stands in the padding changes nothing either.
  other = apply(params, padded.at[:, :3].set(4), mask)
  np.testing.assert_array_equal(got[:, 3:], other[:, 3:])


def test_right_padding_changes_nothing_before_it(model):
  _, params, apply = model
  tokens = factories.make_prompts(1, 6).tokens
  whole = apply(params, tokens, jnp.ones((1, 6), bool))
  cut = apply(params, tokens, jnp.arange(6)[None] < 4)
  np.testing.assert_allclose(cut[:, :4], whole[:, :4], atol=1e-6)


def test_a_later_token_changes_no_earlier_state(model):
  _, params, apply = model
  tokens = factories.make_prompts(1, 6).tokens
  mask = jnp.ones((1, 6), bool)
  before = np.asarray(apply(params, tokens, mask))
  for column in range(6):
    changed = tokens.at[0, column].set((tokens[0, column] + 1) % 24)
    after = np.asarray(apply(params, changed, mask))
    np.testing.assert_array_equal(after[:, :column], before[:, :column])
    moved = np.abs(after - before).max(-1)[0, column:]
    assert (moved > 1e-4).all()


def test_a_completion_sees_its_own_prompt_and_no_other_completion(
  model, prompts, completions
):
  policy, params, _ = model
  apply = jax.jit(functools.partial(_grouped, policy))
  before = np.asarray(apply(params, prompts.tokens, prompts.mask, completions))

  tokens = prompts.tokens.at[0, -1].set((prompts.tokens[0, -1] + 1) % 24)
  after = np.asarray(apply(params, tokens, prompts.mask, completions))
  moved = np.abs(after - before).max(-1)
  assert (moved[:_GROUP] > 1e-4).all()
  assert not moved[_GROUP:].any()

  changed = completions.copy()
  changed[3, 0] = (changed[3, 0] + 1) % 24
  after = np.asarray(apply(params, prompts.tokens, prompts.mask, changed))
  moved = np.abs(after - before).max(-1)
  assert (moved[3, 1:] > 1e-4).all()
  assert not moved[3, 0].any()
  assert not np.delete(moved, 3, axis=0).any()


def test_prompt_is_held_once_for_its_group(model, prompts):
  policy, params, _ = model
  _, cache = jax.eval_shape(
    lambda p: policy.prefill(params, p, _GROUP, _LENGTH), prompts
  )
  pair = [(3, 2, 5, 6)] * 2
  assert [[x.shape for x in layer] for layer in cache.prompt] == [pair] * 2
  pair = [(6, 2, 4, 6)] * 2
  assert [[x.shape for x in layer] for layer in cache.completion] == [pair] * 2
  assert cache.prompt_mask.shape == (3, 5)


def test_cache_has_the_compute_dtype(prompts):
  config = factories.transformer_config(dtype='bfloat16')
  policy, params = make_policy(config), factories.make_params(config)
  hidden, cache = jax.eval_shape(
    lambda p: policy.prefill(params, p, _GROUP, _LENGTH), prompts
  )
  dtypes = {
    leaf.dtype
    for leaf in jax.tree.leaves((cache.prompt, cache.completion, hidden))
  }
  assert dtypes == {jnp.dtype('bfloat16')}


def test_apply_refuses_a_mask_of_another_shape(model):
  policy, params, _ = model
  tokens = jnp.zeros((2, 4), jnp.int32)
  with pytest.raises(AssertionError):
    policy.apply(params, tokens, jnp.ones((2, 3), bool))


# Rollout router replay: a sampler whose router is rounded, a trainer's that is
# not, and the routes that the sampler's cache holds.

_NUM, _G, _R = 16, 4, 12


def _next_log_probs(policy, params, hidden, completions):
  law = jax.nn.log_softmax(policy.logits(params, hidden))
  return jnp.take_along_axis(law, completions[..., None], -1)[..., 0]


@pytest.fixture(
  scope='module',
  params=[
    {'num_experts': 32, 'num_layers': 2},
    {'num_experts': 32, 'decoder_sparse_step': 2, 'norm_topk_prob': False},
  ],
  ids=['all sparse', 'alternating'],
)
def replay(request):
  config = factories.moe_config(**request.param)
  policy, params = make_policy(config), factories.make_params(config)

  def rounded(path, leaf):
    if 'router' not in {key.key for key in path}:
      return leaf
    return np.asarray(leaf.astype(jnp.bfloat16).astype(jnp.float32))

  coarse = jax.tree_util.tree_map_with_path(rounded, params)
  prompts = factories.make_prompts(_NUM, _WIDTH)
  rng = np.random.default_rng(5)
  completions = rng.integers(2, 24, (_NUM * _G, _R)).astype(np.int32)

  @jax.jit
  def decoded(params):
    hidden, cache = policy.prefill(params, prompts, _G, _R)
    weights = policy.for_decoding(params)

    def step(cache, column):
      hidden, cache = policy.decode(
        weights, cache, jnp.asarray(completions)[:, column], column
      )
      return cache, hidden

    # As a sampler: the last token is drawn and not run.
    cache, rest = jax.lax.scan(step, cache, jnp.arange(_R - 1))
    first = jnp.repeat(hidden, _G, axis=0)[None]
    hidden = jnp.concatenate([first, rest]).swapaxes(0, 1)
    sampled = _next_log_probs(policy, params, hidden, completions)
    return sampled, (cache.prompt_routes, cache.completion_routes)

  @jax.jit
  def scored(params, routes):
    hidden, routing = policy.apply_grouped_routed(
      params, prompts.tokens, prompts.mask, completions, None, routes
    )
    got = _next_log_probs(policy, params, hidden, completions)
    return got, routing.routes

  sampled, routes = decoded(coarse)
  return types.SimpleNamespace(
    policy=policy,
    params=params,
    coarse=coarse,
    prompts=prompts,
    completions=completions,
    sampled=sampled,
    routes=routes,
    scored=scored,
  )


def test_the_cache_holds_the_routes_that_were_taken(replay):
  prompt, completion = replay.routes
  num_sparse = prompt.shape[2]
  assert num_sparse == 2
  assert prompt.dtype == completion.dtype == jnp.uint8
  assert prompt.shape == (_NUM, _WIDTH, num_sparse, 2)
  assert completion.shape == (_NUM * _G, _R, num_sparse, 2)
  assert not completion[:, -1].any()
  _, again = replay.scored(replay.coarse, None)
  np.testing.assert_array_equal(again[0], prompt)
  np.testing.assert_array_equal(again[1][:, :-1], completion[:, :-1])


def test_replay_removes_the_mismatch_of_a_rounded_router(replay):
  free, chosen = replay.scored(replay.params, None)
  replayed, used = replay.scored(replay.params, replay.routes)
  jax.tree.map(np.testing.assert_array_equal, used, replay.routes)
  pairs = np.sort(chosen[1]), np.sort(replay.routes[1])
  flipped = (pairs[0] != pairs[1])[:, :-1]
  assert flipped.any()  # The rounding does change routes.
  mismatch = np.abs(free - replay.sampled).max()
  remaining = np.abs(replayed - replay.sampled).max()
  assert remaining < 0.02  # The gates still differ by the rounding.
  assert mismatch > 5 * remaining


def test_replaying_its_own_routes_changes_nothing(replay):
  free, _ = replay.scored(replay.coarse, None)
  replayed, _ = replay.scored(replay.coarse, replay.routes)
  np.testing.assert_allclose(replayed, free, atol=1e-5)
  np.testing.assert_allclose(replayed, replay.sampled, atol=1e-4)


def test_whole_sequences_replay_as_groups_do(replay):
  prompts, (prompt, completion) = replay.prompts, replay.routes
  joined = np.concatenate([np.repeat(prompt, _G, axis=0), completion], 1)
  tokens, mask = _whole(prompts, replay.completions)

  @jax.jit
  def run(params, tokens, mask, joined, completions):
    hidden, routing = replay.policy.apply_routed(params, tokens, mask, joined)
    before = hidden[:, _WIDTH - 1 : -1]
    law = _next_log_probs(replay.policy, params, before, completions)
    return law, routing.routes[0]

  got, used = run(replay.params, tokens, mask, joined, replay.completions)
  np.testing.assert_array_equal(used, joined)
  expected, _ = replay.scored(replay.params, replay.routes)
  np.testing.assert_allclose(got, expected, atol=1e-4)


def test_dense_models_have_no_routes(model):
  policy, params, apply = model
  prompts = factories.make_prompts(2, 4)
  hidden, routing = jax.jit(policy.apply_routed)(
    params, prompts.tokens, prompts.mask, None
  )
  assert routing is None
  expected = apply(params, prompts.tokens, prompts.mask)
  np.testing.assert_allclose(hidden, expected, atol=1e-6)
  _, cache = jax.eval_shape(lambda p: policy.prefill(params, p, 2, 3), prompts)
  assert cache.prompt_routes is None
  assert cache.completion_routes is None
