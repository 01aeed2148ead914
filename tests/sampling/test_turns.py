"""Conversations against the plain loop, and against a full forward pass."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.models.policy import make_policy
from dppo_jax.sampling import decode, turns
from tests.support import factories, full_pass, runs

_PROMPTS, _WIDTH, _GROUP, _LENGTH = 4, 5, 2, 16
_ROWS = _PROMPTS * _GROUP
_KEY = jax.random.PRNGKey(3)
_DENSE = factories.transformer_config(num_layers=1)
_SPARSE = factories.moe_config(num_layers=2)
_EXPECTED = ('tokens', 'token_mask', 'completion_mask', 'truncated', 'group_id')


@pytest.fixture(scope='module')
def prompts():
  return factories.make_prompts(_PROMPTS, _WIDTH)


def _sampler(config=_DENSE, mesh=None, max_turn_length=6):
  settings = factories.sampling_config(
    group_size=_GROUP,
    max_completion_length=_LENGTH,
    eos_ids=tuple(range(1, 8)),  # Turns are short.
    with_routes=config.num_experts > 0,
  )
  axes = factories.vocabulary_axes(mesh)
  return turns.TurnSampler(
    make_policy(config, mesh), axes, settings, max_turn_length
  )


@functools.cache
def _programs(config):
  sampler = _sampler(config)
  return sampler, jax.jit(sampler.start), jax.jit(sampler.resume)


def _talk(programs, config, prompts, told, count):
  """Rollout of a turn for each row of `count` [turns - 1, B], and one more.

  A row goes on while its turns end and its columns last.
  """
  sampler, start, resume = programs
  with runs.quick_compilation():
    weights, state = start(factories.make_params(config), prompts, _KEY)
  boundaries = [np.asarray(state.filled)]
  goes_on = np.ones(_ROWS, bool)
  for lengths in count:
    room = np.asarray(state.filled) + lengths < _LENGTH
    goes_on = goes_on & np.asarray(state.ended) & room
    lengths = np.where(goes_on, lengths, 0)
    more = turns.Told(
      tokens=jnp.asarray(told, jnp.int32),
      count=jnp.asarray(lengths, jnp.int32),
      goes_on=jnp.asarray(goes_on),
    )
    with runs.quick_compilation():
      state = resume(weights, state, more, _KEY)
    boundaries.append(np.asarray(state.filled))
  return sampler.to_rollout(state, prompts), boundaries


def _told():
  """Tokens of replies [B, 3], and how many of them are told [turns - 1, B]."""
  rng = np.random.default_rng(0)
  told = rng.integers(2, factories.VOCAB_SIZE, (_ROWS, 3))
  return told, rng.integers(0, 4, (3, _ROWS))


@functools.cache
def _conversations(config):
  prompts = factories.make_prompts(_PROMPTS, _WIDTH)
  return _talk(_programs(config), config, prompts, *_told())


def test_one_turn_is_the_plain_loop(prompts):
  """A turn without a budget of its own, and nothing said after it."""
  sampler = _sampler(max_turn_length=_LENGTH)
  programs = sampler, jax.jit(sampler.start), None
  got, _ = _talk(programs, _DENSE, prompts, None, [])
  plain = functools.partial(
    decode.sample, sampler.policy, sampler.axes, sampler.config
  )
  with runs.quick_compilation():
    expected = jax.jit(plain)(factories.make_params(_DENSE), prompts, _KEY)
  for name in _EXPECTED:
    np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-5),
    got.stats,
    expected.stats,
  )
  np.testing.assert_array_equal(got.decode_steps, expected.decode_steps)


@pytest.mark.parametrize('config', [_DENSE, _SPARSE], ids=['dense', 'sparse'])
def test_log_probs_are_those_of_a_full_pass(config):
  """Bar: 1e-4 in f32, with left padding and with the prompt shared or not."""
  rollout, boundaries = _conversations(config)
  num_turns = np.stack(boundaries)
  assert (np.diff(num_turns, axis=0) > 0).any(
    axis=0
  ).sum() > 3  # Several turns.
  mask = np.asarray(rollout.completion_mask)
  told = np.asarray(rollout.token_mask)[:, _WIDTH:] & ~mask[:, _WIDTH:]
  assert told.sum() > 4
  for shared_rows in (1, _GROUP):
    stats = full_pass.score(
      config, rollout, prompt_length=_WIDTH, shared_rows=shared_rows
    )
    for name in ('log_probs', 'entropy', 'top_log_probs'):
      np.testing.assert_allclose(
        getattr(rollout.stats, name)[mask],
        getattr(stats, name)[mask],
        atol=1e-4,
      )
    assert not np.asarray(rollout.stats.log_probs)[~mask].any()


def test_tokens_stand_as_sampled_and_as_given():
  rollout, boundaries = _conversations(_DENSE)
  told, count = _told()
  tokens = np.asarray(rollout.tokens)[:, _WIDTH:]
  sampled = np.asarray(rollout.completion_mask)[:, _WIDTH:]
  for row in range(_ROWS):
    for turn, (before, after) in enumerate(itertools.pairwise(boundaries)):
      begin, end = before[row], after[row]
      if begin == end:
        continue
      given = count[turn, row]
      np.testing.assert_array_equal(
        tokens[row, begin : begin + given], told[row, :given]
      )
      assert not sampled[row, begin : begin + given].any()
      assert sampled[row, begin + given : end].all()
      assert 1 <= end - begin - given <= 6  # The budget of a turn.
    end = boundaries[-1][row]
    assert not sampled[row, end:].any()
    assert (tokens[row, end:] == factories.PAD_ID).all()


def test_rows_do_not_depend_on_what_others_are_told(prompts):
  """Bit for bit: a row that waits is not changed by those that go on."""
  first, _ = _conversations(_DENSE)
  changed = np.arange(_ROWS) % 2 == 0
  told, count = _told()
  told[changed] = told[changed][:, ::-1]
  count[:, changed] = 3
  second, _ = _talk(_programs(_DENSE), _DENSE, prompts, told, count)
  assert (first.tokens[changed] != second.tokens[changed]).any()
  for name in ('tokens', 'completion_mask', 'stats'):
    jax.tree.map(
      lambda a, b: np.testing.assert_array_equal(a[~changed], b[~changed]),
      getattr(first, name),
      getattr(second, name),
    )


def test_experts_of_given_tokens_are_recorded_too():
  rollout, _ = _conversations(_SPARSE)
  params = factories.make_params(_SPARSE)
  ran = np.asarray(rollout.token_mask).copy()
  ran[:, :-1] &= ran[:, 1:]
  ran[:, -1] = False
  with runs.quick_compilation():
    _, routing = jax.jit(make_policy(_SPARSE).apply_routed)(
      params, rollout.tokens, rollout.token_mask, None
    )
  same = np.asarray(rollout.routes)[ran] == np.asarray(routing.routes[0])[ran]
  assert same.mean() > 0.999  # Ties aside.


@pytest.mark.slow
def test_rows_over_a_mesh(prompts):
  mesh = parallel.make_mesh(2, 2, 2)
  sampler = _sampler(mesh=mesh)
  programs = sampler, jax.jit(sampler.start), jax.jit(sampler.resume)
  got, _ = _talk(programs, _DENSE, prompts, *_told())
  expected, _ = _conversations(_DENSE)
  for name in _EXPECTED:
    np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
  np.testing.assert_allclose(
    got.stats.log_probs, expected.stats.log_probs, atol=1e-5
  )
