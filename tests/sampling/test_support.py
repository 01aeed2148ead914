"""Filtered sampling against the law with everything else set to zero."""

import functools
import re

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.learner import scoring
from dppo_jax.models.policy import make_policy
from dppo_jax.ops.log_probs import LOWEST_LOG_PROB, restrict, token_stats
from dppo_jax.sampling import continuous, next_token
from dppo_jax.sampling.support import Support
from tests.support import examples, factories, runs

_ROWS, _SIZE, _K = 8, 12, 5
_OFF = Support(top_k=_SIZE, top_p=1.0, min_p=0.0)


@functools.cache
def _program(support, shape=(1, 1, 1), temperature=0.7, top_k=_K):
  mesh = parallel.make_mesh(*shape, jax.devices()[: int(np.prod(shape))])
  return jax.jit(
    functools.partial(
      next_token.sample_token,
      factories.vocabulary_axes(mesh),
      temperature=temperature,
      top_k=top_k,
      support=support,
    )
  )


def _dense(support, logits):
  """(law of softmax(z / .7), the filtered one), f64 [B, V]."""
  law = np.exp(logits.astype(np.float64) / 0.7)
  law /= law.sum(1, keepdims=True)
  order = np.argsort(-logits, axis=1, kind='stable')
  rank = np.argsort(order, axis=1, kind='stable')
  ordered = np.take_along_axis(law, order, 1)
  before = np.take_along_axis(np.cumsum(ordered, 1) - ordered, rank, 1)
  kept = rank < support.top_k
  if support.top_p < 1:
    kept &= before < support.top_p
  kept &= law >= support.min_p * law.max(1, keepdims=True)
  filtered = np.where(kept, law, 0.0)
  return law, filtered / filtered.sum(1, keepdims=True)


_SUPPORTS = [
  _OFF,
  Support(top_k=1, top_p=1.0, min_p=0.0),
  Support(top_k=4, top_p=1.0, min_p=0.0),
  Support(top_k=_SIZE, top_p=0.6, min_p=0.0),
  Support(top_k=_SIZE, top_p=1e-6, min_p=0.0),
  Support(top_k=_SIZE, top_p=1.0, min_p=0.3),
  Support(top_k=3, top_p=0.9, min_p=0.05),
]


@examples.examples(60)
@given(
  support=st.sampled_from(_SUPPORTS),
  sharded=st.booleans(),
  seed=st.integers(0, 2**31),
  scale=st.sampled_from([0.0, 0.3, 2.0, 40.0]),
)
def test_a_filtered_law_is_the_dense_one(support, sharded, seed, scale):
  rng = np.random.default_rng(seed)
  # No -0.0, which top_k puts behind 0.0 where a sort does not.
  logits = np.float32(scale * rng.normal(size=(_ROWS, _SIZE)) + 0.0)
  uniform = jnp.asarray(rng.random(_ROWS), jnp.float32)
  shape = (1, 1, 8) if sharded else (1, 1, 1)
  tokens, stats = _program(support, shape)(logits, uniform)
  law, expected = _dense(support, logits)
  got = np.zeros((_ROWS, _SIZE), bool)
  rows, place = np.nonzero(np.asarray(stats.support) >= 0)
  got[rows, np.asarray(stats.support)[rows, place]] = True
  # A token on an edge may be on either side: its law is left out.
  least = law.max(1, keepdims=True) * support.min_p
  ordered = -np.sort(-law, 1)
  before = np.cumsum(ordered, 1) - ordered
  on_edge = np.abs(before - support.top_p).min(1) < 1e-6
  on_edge |= (np.abs(law - least) < 1e-6).any(1) & (support.min_p > 0)
  sure = ~on_edge
  np.testing.assert_array_equal(got[sure], (expected > 0)[sure])
  assert got[np.arange(_ROWS), np.asarray(tokens)].all()
  at = expected[np.arange(_ROWS), np.asarray(tokens)]
  with np.errstate(divide='ignore'):
    want = np.log(at)
    top = np.log(np.take_along_axis(expected, np.asarray(stats.top_ids), 1))
  np.testing.assert_allclose(stats.log_probs[sure], want[sure], atol=2e-5)
  np.testing.assert_allclose(
    stats.top_log_probs[sure],
    np.maximum(top, LOWEST_LOG_PROB)[sure],
    atol=2e-5,
  )
  entropy = -np.sum(expected * np.log(np.where(expected > 0, expected, 1.0)), 1)
  np.testing.assert_allclose(stats.entropy[sure], entropy[sure], atol=2e-5)


@pytest.mark.parametrize('support', _SUPPORTS[2:], ids=str)
def test_tokens_are_drawn_by_the_filtered_law(support):
  rng = np.random.default_rng(0)
  logits = (2 * rng.normal(size=(1, _SIZE))).astype(np.float32)
  count = 4096
  rows = np.broadcast_to(logits, (count, _SIZE))
  uniform = (jnp.arange(count, dtype=jnp.float32) + 0.5) / count
  tokens, _ = _program(support)(rows, uniform)
  share = np.bincount(np.asarray(tokens), minlength=_SIZE) / count
  np.testing.assert_allclose(share, _dense(support, logits)[1][0], atol=2e-3)


def test_no_row_is_sorted_as_a_whole():
  """On a CPU a top-k whose result is sliced would be; see findings/top_k.sh."""
  shapes = [
    jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((8, 5000), (8,))
  ]
  support = Support(top_k=4, top_p=0.9, min_p=0.0)
  text = _program(support).lower(*shapes).compile().as_text()
  assert 'TopK' in text
  widths = re.findall(r' = \(?[fs]32\[8,(\d+)\].* sort\(', text)
  assert all(int(width) <= _K for width in widths)


def test_the_whole_vocabulary_as_a_support_is_no_filter():
  rng = np.random.default_rng(1)
  logits = rng.normal(size=(_ROWS, _SIZE)).astype(np.float32)
  for uniform in (None, jnp.asarray(rng.random(_ROWS), jnp.float32)):
    one, all_of_it = _program(_OFF)(logits, uniform)
    two, plain = _program(None)(logits, uniform)
    np.testing.assert_allclose(all_of_it.entropy, plain.entropy, atol=1e-6)
    if uniform is None:  # Draws go down the list of the likeliest.
      np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(
      all_of_it.top_log_probs, plain.top_log_probs, atol=1e-6
    )


@pytest.mark.parametrize(
  'fields',
  [dict(top_k=0), dict(top_p=0.0), dict(min_p=1.1), dict(top_p=float('nan'))],
  ids=str,
)
def test_a_filter_that_leaves_no_token_is_refused(fields):
  with pytest.raises(ValueError, match='leaves no token'):
    Support(**{**vars(_OFF), **fields})


@functools.cache
def _scorer(shared_rows, prompt_length):
  policy = make_policy(factories.transformer_config(num_layers=1))
  return jax.jit(
    functools.partial(
      scoring.score,
      policy,
      factories.vocabulary_config(temperature=0.7),
      prompt_length=prompt_length,
      shared_rows=shared_rows,
      with_entropy=True,
      with_hidden=False,
    )
  )


@pytest.mark.parametrize('num_slots', [0, 2])
def test_the_trainer_scores_the_law_that_was_sampled(num_slots):
  """Through padding, prefill, cache, slots and shared prompts."""
  policy = make_policy(factories.transformer_config(num_layers=1))
  params, width = (
    factories.make_params(factories.transformer_config(num_layers=1)),
    5,
  )
  config = factories.sampling_config(
    temperature=0.7,
    num_slots=num_slots,
    support=Support(top_k=6, top_p=0.8, min_p=0.05),
  )
  with runs.quick_compilation():
    rollout = jax.jit(
      functools.partial(
        continuous.sample, policy, factories.vocabulary_axes(), config
      )
    )(params, factories.make_prompts(2, width), jax.random.PRNGKey(0))
    bare = rollout.replace(stats=rollout.stats.replace(support=None))
    score = _scorer(config.group_size, width)
    stats, whole = score(params, rollout), score(params, bare)
  mask = np.asarray(rollout.completion_mask)[:, width:]
  for name in ('log_probs', 'top_log_probs', 'entropy'):
    recorded = np.asarray(getattr(rollout.stats, name))[:, width:][mask]
    np.testing.assert_allclose(
      getattr(stats, name)[mask], recorded, atol=1e-4, err_msg=name
    )
    # Without the support it is another law: the line above can tell.
    assert np.abs(getattr(whole, name)[mask] - recorded).max() > 0.1


def test_a_mask_of_the_logits_is_the_definition():
  logits = jnp.asarray([[[1.0, 2.0, 3.0, 4.0]]])
  support = jnp.asarray([[[2, 0, -1]]])
  stats = token_stats(
    restrict(logits, support),
    jnp.asarray([[2]]),
    top_ids=jnp.asarray([[[3, 0]]]),
    temperature=1.0,
    with_entropy=True,
  )
  p = 1 / (1 + np.exp(-2.0))
  np.testing.assert_allclose(stats.log_probs, np.log([[p]]), rtol=1e-6)
  np.testing.assert_allclose(
    stats.top_log_probs, [[[LOWEST_LOG_PROB, np.log(1 - p)]]], rtol=1e-6
  )
  expected = -p * np.log(p) - (1 - p) * np.log(1 - p)
  np.testing.assert_allclose(stats.entropy, [[expected]], rtol=1e-6)
  assert restrict(logits, None) is logits
