"""Conversations in slots against the same, all at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.models.policy import make_policy
from dppo_jax.sampling import turns
from dppo_jax.sampling.slot_turns import SlotTurnSampler
from dppo_jax.sampling.support import Support
from tests.support import factories, full_pass, runs

_PROMPTS, _WIDTH, _GROUP, _LENGTH, _TURNS = 6, 5, 2, 20, 3
_ROWS = _PROMPTS * _GROUP
_KEY = jax.random.PRNGKey(3)
_DENSE = factories.transformer_config(num_layers=1)
_SPARSE = factories.moe_config(num_layers=1)
_SUPPORT = Support(top_k=6, top_p=0.9, min_p=0.0)


def _sampler(config, num_slots, mesh=None, **overrides):
  settings = factories.sampling_config(
    group_size=_GROUP,
    max_completion_length=_LENGTH,
    eos_ids=tuple(range(1, 8)),  # Turns are short.
    with_routes=config.num_experts > 0,
    num_slots=num_slots,
    **overrides,
  )
  axes = factories.vocabulary_axes(mesh)
  sampler = turns.TurnSampler(make_policy(config, mesh), axes, settings, 6)
  return SlotTurnSampler(sampler) if num_slots else sampler


def _talk(sampler, config):
  """(rollout, times that decoding paused, most rows that were live at once).

  A row is told what its number and that of its turn say, for up to three turns.
  """
  prompts = factories.make_prompts(_PROMPTS, _WIDTH)
  start, resume = jax.jit(sampler.start), jax.jit(sampler.resume)
  rng = np.random.default_rng(0)
  words = rng.integers(2, factories.VOCAB_SIZE, (_TURNS, _ROWS, 3))
  lengths = rng.integers(0, 4, (_TURNS, _ROWS))
  number, over = np.zeros(_ROWS, int), np.zeros(_ROWS, bool)
  most = pauses = 0
  with runs.quick_compilation():
    weights, state = start(factories.make_params(config), prompts, _KEY)
    while True:
      filled, ended, live = jax.device_get(
        (state.filled, state.ended, state.live)
      )
      begun = filled > 0
      most, pauses = max(most, (begun & ~over).sum()), pauses + 1
      waits = begun & ~live & ~over
      assert waits.any()
      at = np.minimum(number, _TURNS - 1), np.arange(_ROWS)
      number += waits
      goes_on = waits & ended & (number < _TURNS)
      goes_on &= filled + lengths[at] < _LENGTH
      over |= waits & ~goes_on
      if over.all():
        break
      told = turns.Told(
        tokens=jnp.asarray(words[at], jnp.int32),
        count=jnp.asarray(np.where(goes_on, lengths[at], 0), jnp.int32),
        goes_on=jnp.asarray(goes_on),
      )
      state = resume(weights, state, told, _KEY)
  return sampler.to_rollout(state, prompts), pauses, most


@functools.cache
def _at_once(config, support=None):
  return _talk(_sampler(config, 0, support=support), config)


def _assert_same(got, expected):
  for name in (
    'tokens',
    'token_mask',
    'completion_mask',
    'truncated',
    'group_id',
    'example_id',
  ):
    np.testing.assert_array_equal(
      getattr(got, name), getattr(expected, name), err_msg=name
    )
  np.testing.assert_array_equal(got.stats.top_ids, expected.stats.top_ids)
  np.testing.assert_allclose(
    got.stats.log_probs, expected.stats.log_probs, atol=1e-5
  )


def test_no_token_differs_from_all_at_once():
  got, pauses, most = _talk(_sampler(_DENSE, 3, support=_SUPPORT), _DENSE)
  expected, fewer, _ = _at_once(_DENSE, _SUPPORT)
  _assert_same(got, expected)
  assert most <= 3
  assert pauses > fewer
  # Slots of whose steps none is lost to a row that had its own.
  assert got.decode_steps.sum() < expected.decode_steps.sum()


def test_routes_and_log_probs_are_those_of_a_full_pass():
  """Bar: 1e-4 in f32, with slots, left padding and shared prompts."""
  got, *_ = _talk(_sampler(_SPARSE, 4), _SPARSE)
  expected, *_ = _at_once(_SPARSE)
  _assert_same(got, expected)
  mask = np.asarray(got.completion_mask)
  told = np.asarray(got.token_mask)[:, _WIDTH:] & ~mask[:, _WIDTH:]
  assert told.sum() > 4
  stats = full_pass.score(
    _SPARSE, got, prompt_length=_WIDTH, shared_rows=_GROUP
  )
  for name in ('log_probs', 'entropy', 'top_log_probs'):
    np.testing.assert_allclose(
      getattr(got.stats, name)[mask], getattr(stats, name)[mask], atol=1e-4
    )


@pytest.mark.slow
def test_slots_over_a_mesh_and_under_a_filter():
  mesh = parallel.make_mesh(1, 2, 4)
  got, *_ = _talk(_sampler(_DENSE, 4, mesh, support=_SUPPORT), _DENSE)
  expected, *_ = _at_once(_DENSE, _SUPPORT)
  _assert_same(got, expected)
  np.testing.assert_array_equal(got.stats.support, expected.stats.support)
