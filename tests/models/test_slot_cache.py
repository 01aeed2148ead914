import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.models.policy import AdaptedParams, make_policy
from tests.support import factories

_CONFIG = factories.transformer_config()
_SLOTS, _WIDTH, _LENGTH = 4, 5, 6


@pytest.fixture(scope='module', params=['by layer', 'stacked'])
def parts(request):
  policy = make_policy(_CONFIG)
  params = factories.make_params(_CONFIG)
  if request.param == 'stacked':  # As on an accelerator.
    params = AdaptedParams(base=params, adapter={}, scale=1.0)
  prompts = factories.make_prompts(2, _WIDTH)
  _, cache = jax.jit(policy.prefill, static_argnums=(2, 3))(
    params, prompts, 1, _LENGTH
  )
  weights = jax.jit(policy.for_decoding)(params)
  return policy, weights, prompts, cache, jax.jit(policy.slots.decode)


def test_slots_begin_one_by_one_and_agree_with_plain_decoding(parts):
  policy, weights, _, prefilled, decode = parts
  plain_decode = jax.jit(policy.decode)
  tokens = np.random.default_rng(0).integers(2, 24, (_LENGTH, 2))
  plain = []
  for step in range(_LENGTH):
    out, prefilled = plain_decode(weights, prefilled, tokens[step], step)
    plain.append(np.asarray(out))
  fill = jax.jit(policy.slots.fill)
  cache = policy.slots.empty(prefilled.prompt, _SLOTS, _LENGTH)
  # Prompt 0 in slot 2 first, three steps later prompt 1 in slot 0.
  nowhere = _SLOTS
  put = (prefilled.prompt, prefilled.prompt_mask)
  cache = fill(cache, *put, jnp.array([[2, nowhere]]))
  for step in range(_LENGTH + 3):
    if step == 3:
      cache = fill(cache, *put, jnp.array([[nowhere, 0]]))
    steps = np.array([step - 3, 0, step, 0]).clip(0, _LENGTH - 1)
    last = np.array([tokens[steps[0], 1], 7, tokens[steps[2], 0], 7])
    out, cache, routes = decode(weights, cache, last, steps)
    assert routes is None
    if step < _LENGTH:
      np.testing.assert_allclose(out[2], plain[step][0], atol=1e-5)
    if step >= 3:
      np.testing.assert_allclose(out[0], plain[step - 3][1], atol=1e-5)


def test_a_prompt_goes_into_several_slots(parts):
  policy, _, prompts, prefilled, _ = parts
  cache = policy.slots.fill(
    policy.slots.empty(prefilled.prompt, _SLOTS, _LENGTH),
    prefilled.prompt,
    prefilled.prompt_mask,
    jnp.array([[3, 1, 0, 2]]),
  )
  order = [1, 0, 1, 0]  # Prompt 0 in slots 3 and 1, prompt 1 in 0 and 2.
  np.testing.assert_array_equal(
    cache.prompt_mask, prompts.mask[np.array(order)]
  )
  jax.tree.map(
    lambda got, put: np.testing.assert_array_equal(
      np.asarray(got), np.take(np.asarray(put), order, axis=-4)
    ),
    cache.prompt,
    prefilled.prompt,
  )


def test_what_a_row_left_behind_reaches_no_other(parts):
  policy, weights, _, prefilled, decode = parts
  empty = policy.slots.empty(prefilled.prompt, _SLOTS, _LENGTH)
  nan = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), empty.completion)
  put = (prefilled.prompt, prefilled.prompt_mask, jnp.array([[1, 3]]))
  tokens, steps = jnp.full(_SLOTS, 5), jnp.array([0, 2, 0, 0])
  clean = policy.slots.fill(empty, *put)
  expected, _, _ = decode(weights, clean, tokens, steps)
  dirty = policy.slots.fill(empty.replace(completion=nan), *put)
  got, _, _ = decode(weights, dirty, tokens, steps)
  np.testing.assert_array_equal(got[1::2], expected[1::2])
  assert np.isnan(got[::2]).all()
