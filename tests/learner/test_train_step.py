import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dppo_jax import parallel
from dppo_jax.base import Batch, Stream, TrainState, stream_key
from dppo_jax.learner import loss as loss_lib
from dppo_jax.learner import metrics as metrics_lib
from dppo_jax.learner import optimizer as optimizer_lib
from dppo_jax.learner import state as state_lib
from dppo_jax.learner import train_step as step_lib
from dppo_jax.models.policy import make_policy
from dppo_jax.ops.masking import AGGREGATIONS
from tests.support import factories

_WIDTH, _LENGTH, _GROUP, _NUM_GROUPS, _MINIBATCHES = 5, 4, 2, 8, 4
_ROWS = _GROUP * _NUM_GROUPS

# Toy: one matrix, a loss that is not linear in it, and a record of the rows.


def _toy_losses(params, batch):
  features = jnp.sin(jnp.stack([batch.tokens, batch.tokens**2], axis=-1) * 1.0)
  scores = jnp.tanh(features[:, _WIDTH:] @ params['kernel'])[..., 0]
  mask = batch.completion_mask[:, _WIDTH:]
  loss = jnp.where(mask, -scores * batch.advantages[:, _WIDTH:], 0.0)
  return loss, batch.tokens[:, _WIDTH:]


def _toy_loss(params, batch, weights, shared):
  del shared
  losses, record = _toy_losses(params, batch)
  return jnp.sum(losses * weights), record


def _toy_metrics(batch, record):
  return {'batch': batch.tokens, 'record': record}


_TOY_PARAMS = {'kernel': np.array([[0.3], [-0.7]], np.float32)}


# Unclipped: the first moment is then a tenth of the gradient, so that states
# tell apart gradients that Adam would scale to the same update.
_TOY_OPTIMIZER = optimizer_lib.make_optimizer(
  factories.optimizer_config(clip_norm=float('inf'))
)


def _toy_state(seed=0, step=0):
  return TrainState(
    step=jnp.asarray(step, jnp.int32),
    params=_TOY_PARAMS,
    opt_state=_TOY_OPTIMIZER.init(_TOY_PARAMS),
    key=jax.random.PRNGKey(seed),
  )


@functools.cache
def _toy_step(mesh, **overrides):
  """(state, batch) -> (state, metrics), compiled."""
  config = factories.step_config(length_norm=3.0, **overrides)
  learner = step_lib.Learner(
    _toy_loss, _toy_metrics, _TOY_OPTIMIZER, config, mesh
  )
  return jax.jit(
    lambda state, batch: step_lib.train_step(learner, state, batch)[:2]
  )


@pytest.fixture(scope='module')
def mesh():
  return factories.one_device_mesh()


@pytest.fixture(scope='module')
def batch():
  return factories.make_batch(_NUM_GROUPS, _GROUP, _WIDTH, _LENGTH)


@pytest.mark.parametrize('aggregation', AGGREGATIONS)
def test_accumulation_changes_no_update(mesh, batch, aggregation):
  """The parts differ in length: wrong denominators would show."""
  lengths = batch.completion_mask.sum(1).reshape(4, -1).sum(1)
  assert len(set(lengths.tolist())) > 1
  one, *others = (
    _toy_step(mesh, num_microbatches=count, aggregation=aggregation)(
      _toy_state(), batch
    )
    for count in (1, 2, 4)
  )
  for other in others:
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5), other, one
    )


@pytest.mark.parametrize('aggregation', AGGREGATIONS)
def test_loss_is_the_named_mean(mesh, batch, aggregation):
  losses = np.asarray(_toy_losses(_TOY_PARAMS, batch)[0], np.float64)
  mask = batch.completion_mask[:, _WIDTH:]
  lengths = mask.sum(1)
  assert lengths.min() > 0
  expected = {
    'token_mean': losses.sum() / mask.sum(),
    'sequence_mean_token_mean': (losses.sum(1) / lengths).mean(),
    'sequence_mean_token_sum': losses.sum(1).mean(),
    'sequence_mean_token_sum_norm': losses.sum(1).mean() / 3.0,
  }[aggregation]
  step = _toy_step(mesh, num_microbatches=1, aggregation=aggregation)
  state, metrics = step(_toy_state(), batch)
  assert float(metrics['loss/total']) == pytest.approx(expected, rel=1e-5)
  moment = optax.tree.get(state.opt_state, 'mu')
  assert float(metrics['optimizer/gradient_norm']) == pytest.approx(
    10.0 * float(optax.tree.norm(moment)), rel=1e-5
  )


def _shuffled_rows(seed, step):
  """Rows in the order the step takes them: groups whole, groups permuted."""
  key = stream_key(jax.random.PRNGKey(seed), Stream.SHUFFLE, step)
  order = np.asarray(jax.random.permutation(key, _NUM_GROUPS))
  return (order[:, None] * _GROUP + np.arange(_GROUP)).reshape(-1)


def test_shuffling_keeps_groups_and_depends_on_seed_and_step(mesh):
  batch = factories.make_batch(_NUM_GROUPS, _GROUP, _WIDTH, _LENGTH)
  # Tokens that say which row they came from.
  tokens = np.broadcast_to(np.arange(_ROWS)[:, None], batch.tokens.shape)
  batch = dataclasses.replace(batch, tokens=tokens.astype(np.int32))
  take = _toy_step(mesh, num_minibatches=_MINIBATCHES, group_size=_GROUP)
  orders = {}
  for seed, step in ((0, 0), (0, 1), (1, 0)):
    _, metrics = take(_toy_state(seed, step), batch)
    order = np.asarray(metrics['batch'])[:, 0]
    np.testing.assert_array_equal(metrics['record'][:, 0], order)
    np.testing.assert_array_equal(order, _shuffled_rows(seed, step))
    groups = order.reshape(-1, _GROUP)
    assert (groups[:, 1] == groups[:, 0] + 1).all()
    assert (groups[:, 0] % _GROUP == 0).all()
    assert sorted(order) == list(range(_ROWS))
    orders[seed, step] = tuple(order)
  assert len(set(orders.values())) == 3


def test_one_minibatch_is_taken_in_order(mesh, batch):
  _, metrics = _toy_step(mesh, group_size=_GROUP)(_toy_state(), batch)
  np.testing.assert_array_equal(metrics['batch'], batch.tokens)


def test_minibatches_are_updates_one_after_the_other(mesh, batch):
  options = dict(group_size=_GROUP)
  together, metrics = _toy_step(mesh, num_minibatches=_MINIBATCHES, **options)(
    _toy_state(), batch
  )
  state, losses = _toy_state(), []
  for rows in _shuffled_rows(0, 0).reshape(_MINIBATCHES, -1):
    part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], batch)
    state, part_metrics = _toy_step(mesh, **options)(state, part)
    losses.append(float(part_metrics['loss/total']))
  chex.assert_trees_all_close(
    (together.params, together.opt_state),
    (state.params, state.opt_state),
    rtol=1e-5,
  )
  # The loss moves: minibatches saw different parameters.
  assert float(metrics['loss/total']) == pytest.approx(
    np.mean(losses), rel=1e-5
  )
  assert int(together.step) == 1


# The real policy and loss: one program for one device, one for eight.


def _program(mesh):
  """(compiled step, a maker of fresh states, batches traced so far)."""
  config = factories.transformer_config()
  params = factories.make_params(config)
  return _compile(mesh, make_policy(config), params, shared_rows=_GROUP)


def _compile(mesh, policy, params, shared_rows, recorded=False):
  optimizer = optimizer_lib.make_optimizer(
    factories.optimizer_config(schedule='linear', final_fraction=0.1)
  )
  shardings = state_lib.shardings_of(
    state_lib.abstract_state(policy, optimizer, mesh)
  )
  start = TrainState(
    step=np.zeros((), np.int32),
    params=params,
    opt_state=optimizer.init(params),
    key=jax.random.PRNGKey(0),
  )
  start = jax.tree.map(np.array, start)
  loss_fn = functools.partial(
    loss_lib.policy_loss,
    policy,
    factories.vocabulary_config(mesh),
    factories.loss_config(
      prompt_length=_WIDTH, shared_rows=shared_rows, entropy_coefficient=0.01
    ),
    with_top_k=recorded,
  )
  traced = []

  def traced_loss_fn(params, batch, weights, shared):
    traced.append(batch)
    return loss_fn(params, batch, weights, shared)

  learner = step_lib.Learner(
    traced_loss_fn,
    functools.partial(
      metrics_lib.trust_region_metrics, num_minibatches=_MINIBATCHES
    ),
    optimizer,
    factories.step_config(
      num_minibatches=_MINIBATCHES, group_size=_GROUP, prompt_length=_WIDTH
    ),
    mesh,
  )
  step = step_lib.compile_train_step(learner, shardings, recorded=recorded)
  return step, lambda: jax.device_put(start, shardings), traced


@pytest.fixture(scope='module')
def single(mesh):
  return _program(mesh)


def test_a_program_has_the_name_that_is_reported(mesh):
  learner = step_lib.Learner(None, None, None, None, mesh)
  step = step_lib.compile_train_step(learner, None, name='imitate')
  assert step.__name__ == 'imitate'


def _three_steps(program):
  """The state after three batches, and the metrics of each."""
  step, make_state, _ = program
  state, history = make_state(), []
  for seed in range(3):
    batch = factories.make_batch(
      _NUM_GROUPS, _GROUP, _WIDTH, _LENGTH, seed=seed
    )
    state, metrics = step(state, batch)
    history.append(metrics)
  return state, history


@pytest.fixture(scope='module')
def trained(single):
  return _three_steps(single)


# What `trained` gave when this test was written. A change that is meant to
# change numbers copies them from the failure of the test, which shows them, and
# says so in the changelog under "Results".
_GOLDEN = {
  'loss/total': -1.32896,
  'optimizer/gradient_norm': 10.51797,
  'trust_region/fraction_masked': 0.35,
  'trust_region/divergence_mean': 0.38857,
}


def test_three_steps_end_where_they_always_did(trained):
  _, history = trained
  got = {name: float(history[-1][name]) for name in _GOLDEN}
  assert got == {
    name: pytest.approx(value, abs=1e-4) for name, value in _GOLDEN.items()
  }


def test_steps_are_counted(trained):
  state, _ = trained
  assert int(state.step) == 3
  counts = optax.tree.get_all_with_path(state.opt_state, 'count')
  assert {int(count) for _, count in counts} == {3 * _MINIBATCHES}


@pytest.fixture(scope='module')
def sharded():
  return _program(parallel.make_mesh(2, 2, 2))


def test_eight_devices_do_what_one_does(trained, sharded):
  expected, expected_history = jax.tree.map(np.array, trained)
  state, history = _three_steps(sharded)
  assert state.params['embedding'].addressable_shards[0].data.shape == (12, 8)
  assert history[0]['loss/total'].sharding.is_fully_replicated
  state, history = jax.tree.map(np.array, (state, history))
  chex.assert_trees_all_close(state.params, expected.params, atol=1e-5, rtol=0)
  chex.assert_trees_all_close(history, expected_history, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures('trained')
def test_step_compiles_once(single):
  step, make_state, traced = single
  before = len(traced)
  for seed in range(3):
    step(
      make_state(),
      factories.make_batch(_NUM_GROUPS, _GROUP, _WIDTH, _LENGTH, seed=seed),
    )
  assert len(traced) == before
  # None are left where 8,192 others of a whole run of the tests came after.
  assert step._cache_size() <= 1


# A record is of the head and of the loss: no layer knows of it.


def _without_layers(mesh, recorded):
  policy, params = factories.lookup_policy(), factories.lookup_params()
  return _compile(mesh, policy, params, shared_rows=1, recorded=recorded)


@pytest.fixture(scope='module')
def recorded(mesh):
  return _without_layers(mesh, recorded=True)


def test_recording_changes_no_bit(mesh, recorded, batch):
  """Fused as for a user: what the tests leave out may round another way."""
  ends = []
  for jitted, make_state, _ in (_without_layers(mesh, False), recorded):
    step = jitted.lower(make_state(), batch).compile(
      compiler_options={'xla_cpu_use_fusion_emitters': True}
    )
    state, history = make_state(), []
    for seed in range(3):
      state, metrics, *_ = step(
        state,
        factories.make_batch(_NUM_GROUPS, _GROUP, _WIDTH, _LENGTH, seed=seed),
      )
      history.append(metrics)
    ends.append((state, history))
  chex.assert_trees_all_equal(*ends)


def test_a_record_has_the_rows_of_the_batch(recorded, batch):
  step, make_state, _ = recorded
  _, metrics, (decisions, update) = step(make_state(), batch)
  rows = _shuffled_rows(0, 0)
  order = np.empty(_ROWS, int)
  order[rows] = np.arange(_ROWS)
  size = _ROWS // _MINIBATCHES
  np.testing.assert_array_equal(update, order // size)
  mask = batch.completion_mask[:, _WIDTH:]
  np.testing.assert_array_equal(np.asarray(decisions.log_probs) != 0, mask)
  assert decisions.top_log_probs.shape == (*mask.shape, 5)
  # Of the top ids, the sampled one has the log-prob of the sampled token.
  sampled = batch.rollout.top_ids == batch.tokens[..., None]
  places = np.nonzero(sampled[:, _WIDTH:] & mask[..., None])
  assert len(places[0])
  np.testing.assert_array_equal(
    np.asarray(decisions.top_log_probs)[places],
    np.asarray(decisions.log_probs)[places[:2]],
  )
  masked = (np.asarray(decisions.keep) < 1)[mask]
  assert float(metrics['trust_region/fraction_masked']) == pytest.approx(
    masked.mean()
  )


def test_state_is_donated(single, batch):
  step, make_state, _ = single
  state = make_state()
  step(state, batch)
  arrays = jax.tree.leaves((state.params, state.opt_state))
  assert all(leaf.is_deleted() for leaf in arrays)


def _broken(batch: Batch, rows) -> Batch:
  advantages = np.where(batch.completion_mask, batch.advantages, 0.0)
  advantages[rows] = np.where(
    batch.completion_mask[rows], np.nan, advantages[rows]
  )
  return dataclasses.replace(batch, advantages=advantages)


def test_nan_changes_nothing_and_a_finite_batch_resumes(single, batch):
  step, make_state, _ = single
  before = jax.tree.map(np.array, make_state())
  state, metrics = step(make_state(), _broken(batch, slice(None)))
  jax.tree.map(np.testing.assert_array_equal, state.params, before.params)
  for name in ('mu', 'nu'):
    chex.assert_trees_all_equal(
      optax.tree.get(state.opt_state, name),
      optax.tree.get(before.opt_state, name),
    )
  assert float(metrics['optimizer/nonfinite_in_a_row']) == _MINIBATCHES
  assert float(metrics['optimizer/nonfinite_total']) == _MINIBATCHES
  assert np.isnan(float(metrics['optimizer/gradient_norm']))
  assert int(state.step) == 1

  state, metrics = step(state, batch)
  assert float(metrics['optimizer/nonfinite_in_a_row']) == 0
  assert float(metrics['optimizer/nonfinite_total']) == _MINIBATCHES
  assert np.isfinite(float(metrics['optimizer/gradient_norm']))
  moved = jax.tree.map(
    lambda a, b: float(np.abs(np.asarray(a) - b).max()),
    state.params,
    before.params,
  )
  assert min(jax.tree.leaves(moved)) > 0


def test_one_bad_row_costs_one_update(single, batch):
  step, make_state, _ = single
  last = _shuffled_rows(0, 0)[-1:]
  state, metrics = step(make_state(), _broken(batch, last))
  assert float(metrics['optimizer/nonfinite_in_a_row']) == 1
  assert float(metrics['optimizer/nonfinite_total']) == 1
  counts = optax.tree.get_all_with_path(state.opt_state, 'count')
  assert {int(count) for _, count in counts} == {_MINIBATCHES - 1}


def test_a_batch_without_a_token_changes_nothing(mesh):
  """Neither momentum nor weight decay moves, nor does the schedule go on."""
  optimizer = optimizer_lib.make_optimizer(
    factories.optimizer_config(
      schedule='linear', final_fraction=0.1, weight_decay=0.1, b1=0.9
    )
  )
  params = {'kernel': jnp.ones((2, 2))}
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    key=jax.random.PRNGKey(0),
  )

  def loss_fn(params, batch, weights, shared):
    del shared
    loss = jnp.sum(weights) * jnp.sum(params['kernel'] ** 2)
    return loss, jnp.zeros(batch.completion_mask.shape[0])

  config = factories.step_config(group_size=_GROUP, prompt_length=_WIDTH)

  @jax.jit
  def step(state, batch):
    learner = step_lib.Learner(loss_fn, lambda *_: {}, optimizer, config, mesh)
    return step_lib.train_step(learner, state, batch)[:2]

  batch = factories.make_batch(_NUM_GROUPS, _GROUP, _WIDTH, _LENGTH)
  empty = dataclasses.replace(
    batch, completion_mask=np.zeros_like(batch.completion_mask)
  )
  first, _ = step(state, batch)
  assert not np.array_equal(first.params['kernel'], params['kernel'])
  second, metrics = step(first, empty)
  jax.tree.map(
    np.testing.assert_array_equal,
    (second.params, second.opt_state),
    (first.params, first.opt_state),
  )
  assert int(second.step) == 2
  assert float(metrics['optimizer/gradient_norm']) == 0
  assert float(metrics['optimizer/nonfinite_total']) == 0


@pytest.mark.parametrize('shape', [(16, 9), (16, 5, 3), (16,)])
def test_no_device_holds_the_rows_of_all_to_order_them(shape):
  mesh = parallel.make_mesh(4, 2, 1)
  by_rows = parallel.batch_sharding(mesh)
  rng = np.random.default_rng(0)
  rows, order = rng.standard_normal(shape).astype('f'), rng.permutation(16)

  def take(rows, order):
    return step_lib.take_rows(mesh, rows, order)

  compiled = jax.jit(take, in_shardings=(by_rows, None)).lower(rows, order)
  compiled = compiled.compile()
  got = compiled(jax.device_put(rows, by_rows), order)
  np.testing.assert_array_equal(got, rows[order])
  if len(shape) > 1:
    assert got.sharding.is_equivalent_to(by_rows, len(shape))
    assert 'all-gather' not in compiled.as_text()
