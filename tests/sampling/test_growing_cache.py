import functools

import jax
import numpy as np
import pytest

from dppo_jax.models.attention import dispatch
from dppo_jax.models.policy import make_policy
from dppo_jax.sampling import continuous, growing_cache
from tests.support import factories

_PROMPTS, _WIDTH, _GROUP, _LIMIT = 4, 5, 2, 20
_KEY = jax.random.PRNGKey(3)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
  monkeypatch.setattr(dispatch, '_CPU_DECODE_KEYS', 3)


@pytest.mark.parametrize(
  ('first', 'expected'),
  [
    (0, (20,)),  # All at once.
    (1, (6, 12, 20)),  # Whole blocks of 3, two at least.
    (7, (9, 18, 20)),
    (10, (12, 20)),
    (18, (18, 20)),
    (19, (20,)),
    (99, (20,)),
  ],
)
def test_widths_double_up_to_the_limit(first, expected):
  assert growing_cache.widths(first, _LIMIT, 'cpu') == expected


def _in_stages(stages, params, prompts, width, limit):
  """The rollout, and the widths that its cache had."""
  start = jax.jit(stages.start, static_argnums=3)
  run = jax.jit(stages.run, donate_argnums=3)
  state = start(params, prompts, _KEY, width)
  seen = []
  for columns in growing_cache.widths(width, limit, 'cpu'):
    if seen:
      state = growing_cache.grow(state, columns)
    state = run(params, prompts, _KEY, state)
    leaves = jax.tree.leaves(state.cache.completion)
    seen.append({leaf.shape[-2] for leaf in leaves})
    if not stages.unfinished(prompts, state):
      break
  assert all(len(one) == 1 for one in seen)
  finish = jax.jit(stages.finish)
  return finish(prompts, state), [columns for (columns,) in seen]


# Rows that end at the limit, and before; and slots, where rows of any length
# stand side by side, of a sparse model whose routes are recorded.
@pytest.mark.parametrize(
  ('num_experts', 'limit', 'overrides', 'expected'),
  [
    (0, 20, dict(), [6, 12, 20]),
    (0, 20, dict(eos_ids=tuple(range(12))), [6]),
    (4, 12, dict(num_slots=4, with_routes=True), [6, 12]),
  ],
)
def test_a_cache_that_grows_changes_no_bit(
  num_experts, limit, overrides, expected
):
  config = factories.transformer_config(num_layers=1, num_experts=num_experts)
  settings = factories.sampling_config(
    group_size=_GROUP, max_completion_length=limit, **overrides
  )
  params = factories.make_params(config)
  prompts = factories.make_prompts(_PROMPTS, _WIDTH)
  model = make_policy(config), factories.vocabulary_axes(), settings
  whole = jax.jit(functools.partial(continuous.sample, *model))
  stages = growing_cache.stages(*model)
  grown, widths = _in_stages(stages, params, prompts, 6, limit)
  assert widths == expected
  for got, want in zip(
    jax.tree.leaves(grown),
    jax.tree.leaves(whole(params, prompts, _KEY)),
    strict=True,
  ):
    np.testing.assert_array_equal(got, want)


def test_growing_keeps_what_is_written_and_frees_what_was():
  config = factories.transformer_config(num_layers=1)
  settings = factories.sampling_config(max_completion_length=_LIMIT)
  stages = growing_cache.stages(
    make_policy(config), factories.vocabulary_axes(), settings
  )
  params = factories.make_params(config)
  prompts = factories.make_prompts(_PROMPTS, _WIDTH)
  state = jax.jit(stages.start, static_argnums=3)(params, prompts, _KEY, 6)
  state = jax.jit(stages.run)(params, prompts, _KEY, state)
  before = jax.tree.leaves(state.cache.completion)
  kept = [np.asarray(leaf) for leaf in before]
  grown = growing_cache.grow(state, 12)
  assert all(leaf.is_deleted() for leaf in before)
  for leaf, old in zip(
    jax.tree.leaves(grown.cache.completion), kept, strict=True
  ):
    assert np.any(old)
    np.testing.assert_array_equal(leaf[..., :6, :], old)
    assert not np.any(leaf[..., 6:, :])
