import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.models import policy as policy_lib
from dppo_jax.models.policy import make_policy
from tests import factories

_PROMPTS, _WIDTH, _GROUP, _LENGTH = 3, 5, 2, 4

# Every pair of values of the first three; the rest once.
_VARIANTS = [
  dict(qk_norm=True, qkv_bias=False, tied_head=True, remat='none'),
  dict(qk_norm=True, qkv_bias=True, tied_head=False, remat='none'),
  dict(qk_norm=False, qkv_bias=False, tied_head=False, remat='full'),
  dict(qk_norm=False, qkv_bias=True, tied_head=True, layers_a_loop=2),
]


def test_positions_count_real_tokens():
  mask = jnp.array([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]], bool)
  positions = policy_lib.positions_of(mask)
  assert positions.dtype == jnp.int32
  assert positions.tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2]]


def test_causal_mask_hides_padding_and_the_future():
  got = policy_lib.causal_mask(jnp.array([[False, True, True]]))
  assert got.astype(int).tolist() == [[[0, 0, 0], [0, 1, 0], [0, 1, 1]]]


@pytest.fixture(scope='module')
def prompts():
  return factories.make_prompts(_PROMPTS, _WIDTH)


@pytest.fixture(scope='module')
def completions():
  rng = np.random.default_rng(7)
  shape = (_PROMPTS * _GROUP, _LENGTH)
  return jnp.asarray(rng.integers(0, factories.VOCAB_SIZE, shape), jnp.int32)


def _whole(prompts, completions):
  """[B, T] tokens and mask of every row on its own."""
  group = completions.shape[0] // prompts.tokens.shape[0]
  tokens = jnp.repeat(prompts.tokens, group, axis=0)
  mask = jnp.repeat(prompts.mask, group, axis=0)
  return (
    jnp.concatenate([tokens, completions], axis=1),
    jnp.concatenate([mask, jnp.ones_like(completions, bool)], axis=1),
  )


@pytest.mark.parametrize('variant', _VARIANTS, ids=str)
def test_three_ways_to_the_same_logits(variant, prompts, completions):
  config = factories.transformer_config(**variant)
  policy = make_policy(config)

  @jax.jit
  def three_ways(params):
    whole = policy.apply(params, *_whole(prompts, completions))
    grouped = policy.apply_grouped(
      params, prompts.tokens, prompts.mask, completions
    )
    state, cache = policy.prefill(params, prompts, _GROUP, _LENGTH)

    def step(cache, column):
      state, cache = policy.decode(
        params, cache, completions[:, column], column
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
  apply = jax.jit(policy.apply_grouped)
  before = np.asarray(apply(params, prompts.tokens, prompts.mask, completions))

  tokens = prompts.tokens.at[0, -1].set((prompts.tokens[0, -1] + 1) % 24)
  after = np.asarray(apply(params, tokens, prompts.mask, completions))
  moved = np.abs(after - before).max(-1)
  assert (moved[:_GROUP] > 1e-4).all()
  assert not moved[_GROUP:].any()

  changed = completions.at[3, 0].set((completions[3, 0] + 1) % 24)
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
  assert [leaf.shape for leaf in cache.prompt] == [(2, 3, 5, 2, 6)] * 2
  assert [leaf.shape for leaf in cache.completion] == [(2, 6, 4, 2, 6)] * 2
  assert cache.prompt_mask.shape == (3, 5)


def test_cache_has_the_compute_dtype(prompts):
  config = factories.transformer_config(dtype='bfloat16')
  policy, params = make_policy(config), factories.make_params(config)
  hidden, cache = jax.eval_shape(
    lambda p: policy.prefill(params, p, _GROUP, _LENGTH), prompts
  )
  dtypes = {leaf.dtype for leaf in (*cache.prompt, *cache.completion, hidden)}
  assert dtypes == {jnp.dtype('bfloat16')}


def test_apply_refuses_a_mask_of_another_shape(model):
  policy, params, _ = model
  tokens = jnp.zeros((2, 4), jnp.int32)
  with pytest.raises(AssertionError):
    policy.apply(params, tokens, jnp.ones((2, 3), bool))
