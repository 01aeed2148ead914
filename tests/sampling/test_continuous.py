import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.models.attention import dispatch
from dppo_jax.models.policy import make_policy
from dppo_jax.models.slot_cache import SlotCache, Slots
from dppo_jax.sampling import continuous, slot_plan
from tests.support import factories, toy_policy

_PROMPTS, _WIDTH, _GROUP, _LENGTH = 8, 5, 4, 8
_ROWS = _PROMPTS * _GROUP
_KEY = jax.random.PRNGKey(11)
_DENSE = factories.transformer_config(qkv_bias=True)
_SPARSE = factories.moe_config(num_layers=2)
_RECORDED = dict(with_hidden=True, with_routes=True)


@pytest.fixture(scope='module')
def prompts():
  return factories.make_prompts(_PROMPTS, _WIDTH)


@functools.cache
def _program(config, mesh=None, refills=None, decode_keys=None, **overrides):
  """Compiled sampler, and its parameters; constants as given, where they are.

  Args:
    config: of the model.
    mesh: or one device.
    refills: as `slot_plan._REFILLS`.
    decode_keys: as `dispatch._CPU_DECODE_KEYS`.
    **overrides: of the sampling.
  """
  policy = make_policy(config, mesh)
  params = factories.make_params(config)
  settings = factories.sampling_config(**overrides)
  axes = factories.vocabulary_axes(mesh)
  draw = functools.partial(continuous.sample, policy, axes, settings)
  rows = None if mesh is None else parallel.batch_sharding(mesh)
  run = jax.jit(draw, in_shardings=(None, rows, None), out_shardings=rows)
  prompts = factories.make_prompts(_PROMPTS, _WIDTH)
  with pytest.MonkeyPatch.context() as patch:
    if refills is not None:
      patch.setattr(slot_plan, '_REFILLS', refills)
    if decode_keys is not None:
      patch.setattr(dispatch, '_CPU_DECODE_KEYS', decode_keys)
    return run.lower(params, prompts, _KEY).compile(), params


def _sample(prompts, *args, **kwargs):
  program, params = _program(*args, **kwargs)
  return program(params, prompts, _KEY)


@pytest.fixture(scope='module')
def base(prompts):
  """All rows at once: lengths from 1 to the limit."""
  rollout = _sample(prompts, _DENSE)
  lengths = np.asarray(rollout.completion_mask).sum(1)
  assert lengths.min() == 1
  assert lengths.max() == _LENGTH
  assert len(set(lengths.tolist())) > 4
  return rollout


@pytest.fixture(scope='module')
def sparse(prompts):
  """The same of a model with experts, and its states and routes."""
  return _sample(prompts, _SPARSE, **_RECORDED)


def _assert_same(got, expected):
  for name in ('tokens', 'token_mask', 'completion_mask', 'truncated'):
    np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
  for name in ('group_id', 'example_id'):
    np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
  a, b = got.stats, expected.stats
  np.testing.assert_allclose(a.log_probs, b.log_probs, atol=1e-5)
  np.testing.assert_allclose(a.entropy, b.entropy, atol=1e-5)
  np.testing.assert_array_equal(a.top_ids, b.top_ids)
  np.testing.assert_allclose(a.top_log_probs, b.top_log_probs, atol=1e-5)


def _live(rollout):
  return (np.asarray(rollout.completion_mask).sum(1) - 1).sum()


@pytest.mark.slow
@pytest.mark.parametrize(
  ('num_slots', 'refills', 'size', 'num_prompts'),
  [(1, 16, 1, 1), (8, 4, 2, 1), (16, 2, 8, 2)],
)
def test_slots_change_no_completion(
  base, prompts, monkeypatch, num_slots, refills, size, num_prompts
):
  monkeypatch.setattr(slot_plan, '_REFILLS', refills)
  plan = slot_plan.plan_slots(_ROWS, _GROUP, num_slots, 1)
  assert (plan.refill, plan.prompts) == (size, num_prompts)
  rollout = _sample(prompts, _DENSE, refills=refills, num_slots=num_slots)
  _assert_same(rollout, base)
  steps = int(rollout.decode_steps.sum())
  assert steps % num_slots == 0  # Every slot of every step.
  own = np.asarray(rollout.completion_mask).sum(1) - 1
  assert (np.asarray(rollout.decode_steps) >= own).all()
  if num_slots == 1:
    assert steps == _live(rollout)  # Nothing idles.
  else:
    assert _live(rollout) < steps <= int(base.decode_steps.sum())


@pytest.mark.slow
def test_rows_do_not_depend_on_their_neighbors(base, prompts):
  """Bit for bit, although others end elsewhere and slots are refilled."""
  sample = functools.partial(_sample, config=_DENSE, refills=4, num_slots=8)
  tokens = jnp.flip(prompts.tokens, axis=1)
  mask = prompts.mask.at[:, 2:].set(True)
  changed = np.arange(_PROMPTS) % 2 == 0
  other = dataclasses.replace(
    prompts,
    tokens=jnp.where(changed[:, None], tokens, prompts.tokens),
    mask=jnp.where(changed[:, None], mask, prompts.mask),
  )
  first, second = sample(prompts), sample(other)
  same = ~np.repeat(changed, _GROUP)
  assert (first.completion_mask[~same] != second.completion_mask[~same]).any()
  take = functools.partial(jax.tree.map, lambda leaf: np.asarray(leaf)[same])
  for name in ('tokens', 'completion_mask', 'stats'):
    jax.tree.map(
      np.testing.assert_array_equal,
      take(getattr(first, name)),
      take(getattr(second, name)),
    )


@pytest.mark.slow
def test_states_and_routes_are_recorded(prompts, sparse):
  expected, got = sparse, _sample(prompts, _SPARSE, num_slots=4, **_RECORDED)
  _assert_same(got, expected)
  mask = np.asarray(expected.completion_mask)
  assert np.abs(np.asarray(expected.stats.hidden)[mask]).mean() > 0.1
  np.testing.assert_allclose(got.stats.hidden, expected.stats.hidden, atol=1e-5)
  ran = np.asarray(expected.token_mask).copy()
  ran[:, :-1] &= ran[:, 1:]
  ran[:, -1] = False
  assert got.routes.dtype == expected.routes.dtype == np.uint8
  same = np.asarray(got.routes)[ran] == np.asarray(expected.routes)[ran]
  assert same.mean() > 0.999  # Ties aside.


@pytest.mark.slow
@pytest.mark.parametrize('sizes', [(8, 1, 1), (2, 2, 2)], ids=str)
def test_every_shard_refills_its_own_slots(base, prompts, sizes):
  mesh = parallel.make_mesh(*sizes)
  _assert_same(_sample(prompts, _DENSE, mesh, num_slots=8), base)
  text = _program(_DENSE, mesh, num_slots=8)[0].as_text()
  crossing = re.findall(r'= (\S+) (?:all-|collective|reduce-sc)[\w-]+\(', text)
  assert crossing
  if sizes == (8, 1, 1):
    assert set(crossing) == {'pred[]'}  # Of the two loops.
    return
  # No keys or values cross: the most is the vectors of a refill's prompts.
  for shape in crossing:
    numbers = re.findall(r'\d+', shape.partition('[')[2].partition(']')[0])
    assert math.prod(map(int, numbers)) <= _WIDTH * _DENSE.d_model, shape


@pytest.mark.slow
def test_experts_over_the_mesh(prompts, sparse):
  mesh = parallel.make_mesh(1, 2, 1, jax.devices()[:4], expert=2)
  _assert_same(_sample(prompts, _SPARSE, mesh, num_slots=8), sparse)


_CALLS = []


def _toy_policy():
  """The toy policy in slots: the state is the number of the token."""
  policy = toy_policy.make(lambda step: None)

  def empty(prompt, num_slots, num_columns):
    del prompt, num_columns
    one = jnp.zeros((num_slots, 1))
    return SlotCache(prompt=(one, one), prompt_mask=one, completion=(one, one))

  def step_on(params, cache, tokens, steps):
    del params, tokens
    jax.debug.callback(lambda s: _CALLS.append(np.asarray(s)), steps)
    return steps[:, None] + 1.0, cache, None

  return policy._replace(
    slots=Slots(empty, lambda cache, *_: cache, step_on), decode=None
  )


@pytest.fixture(scope='module')
def draw_toys():
  settings = factories.sampling_config(num_slots=8, top_k=0)
  return jax.jit(
    functools.partial(
      continuous.sample, _toy_policy(), factories.vocabulary_axes(), settings
    )
  )


@pytest.mark.parametrize('end_after', [1, 3, 99])
def test_every_slot_of_every_step_is_counted(prompts, draw_toys, end_after):
  law = {'head': np.log(toy_policy.FLAT)[None], 'end_after': end_after}
  _CALLS.clear()
  rollout = draw_toys(law, prompts, _KEY)
  jax.effects_barrier()
  assert int(rollout.decode_steps.sum()) == 8 * len(_CALLS)
  length = min(end_after, _LENGTH)
  assert (np.asarray(rollout.completion_mask).sum(1) == length).all()
  # All rows are alike: each wave of 8 takes as long as a row.
  assert len(_CALLS) == (length - 1) * _ROWS // 8
  np.testing.assert_array_equal(rollout.truncated, end_after > _LENGTH)


def test_the_plain_loop_counts_all_rows_for_all_steps(base):
  lengths = np.asarray(base.completion_mask).sum(1)
  np.testing.assert_array_equal(base.decode_steps, lengths.max() - 1)


@pytest.mark.slow
def test_a_cache_of_several_blocks_changes_no_completion(base, prompts):
  """Decoding by blocks, with every row at a length of its own."""
  _assert_same(_sample(prompts, _DENSE, decode_keys=3, num_slots=8), base)
