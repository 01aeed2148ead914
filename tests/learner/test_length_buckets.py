import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dppo_jax import parallel
from dppo_jax.base import TrainState
from dppo_jax.learner import loss as loss_lib
from dppo_jax.learner import metrics as metrics_lib
from dppo_jax.learner import state as state_lib
from dppo_jax.learner import train_step as step_lib
from dppo_jax.models.policy import make_policy
from tests.support import factories

_WIDTH, _LENGTH, _GROUP, _NUM_GROUPS = 5, 9, 2, 8
_BUCKETS = factories.length_buckets(
  count=2, group_size=_GROUP, shared_rows=_GROUP
)


@pytest.mark.parametrize(
  ('count', 'expected'),
  [(1, (10,)), (3, (4, 7, 10)), (4, (3, 5, 8, 10)), (99, range(1, 11))],
)
def test_widths_rise_to_the_limit(count, expected):
  buckets = factories.length_buckets(count=count)
  assert buckets.widths(10) == tuple(expected)


@pytest.mark.parametrize(
  ('num_columns', 'multiple', 'expected'),
  [(12, 4, (4, 8, 12)), (16, 2, (6, 12, 16)), (8, 8, (8,))],
)
def test_widths_are_multiples_for_devices_that_split_columns(
  num_columns, multiple, expected
):
  buckets = factories.length_buckets(count=3, multiple=multiple)
  assert buckets.widths(num_columns) == expected


def _mask(lengths, prompt_length=5, num_columns=8):
  mask = np.arange(num_columns) < np.array(lengths)[:, None]
  return np.pad(mask, ((0, 0), (prompt_length, 0)))


@pytest.mark.parametrize(
  ('shared_rows', 'expected'),
  [
    (1, [2, 1, 5, 7, 4, 3, 6, 0]),
    (2, [2, 1, 5, 7, 4, 6, 3, 0]),
    (4, [5, 7, 4, 6, 2, 1, 3, 0]),
  ],
)
def test_rows_of_a_prompt_stay_together(shared_rows, expected):
  buckets = factories.length_buckets(
    count=2, group_size=4, shared_rows=shared_rows
  )
  mask = _mask([8, 1, 0, 5, 4, 2, 6, 3])
  np.testing.assert_array_equal(buckets.order(mask), expected)


@pytest.mark.parametrize(
  ('lengths', 'width'), [([0, 0], 3), ([3, 1], 3), ([4, 0], 6), ([8, 8], 8)]
)
def test_rows_are_run_at_the_least_width_that_holds_them(lengths, width):
  buckets = factories.length_buckets(count=3)
  mask = _mask(lengths)
  rows = factories.make_batch(1, 2, 5, 8)
  rows = dataclasses.replace(rows, token_mask=mask)
  others = {
    'all': np.ones((2, 13)),
    'completion': np.ones((2, 8, 2)),
    'row': np.ones(2),
  }
  run = buckets.shortened(
    lambda rows, x: (x, jnp.sum(x['all']), jnp.asarray(rows.tokens.shape[1]))
  )
  got, total, num_columns = jax.jit(run)(rows, others)
  assert float(total) == 2 * int(num_columns) == 2 * (5 + width)
  assert float(buckets.columns(mask)) == 2 * width
  np.testing.assert_array_equal(
    got['completion'][..., 0], np.arange(8) < np.full((2, 1), width)
  )
  assert got['all'].shape == (2, 13)
  np.testing.assert_array_equal(got['row'], [1, 1])


@functools.cache
def _program(mesh, buckets, num_microbatches, rule, layers):
  """(state, batch) -> (state, metrics, record), compiled; and a first state."""
  config = factories.transformer_config(num_layers=1)
  if layers:
    policy, params = make_policy(config, mesh), factories.make_params(config)
  else:
    policy, params = factories.lookup_policy(), factories.lookup_params()
  optimizer = optax.apply_if_finite(optax.sgd(0.1), 1)
  learner = step_lib.Learner(
    functools.partial(
      loss_lib.policy_loss,
      policy,
      factories.vocabulary_config(mesh),
      factories.loss_config(
        shared_rows=_GROUP if layers else 1,
        entropy_coefficient=0.01,
        rule=rule,
        importance='sequence' if rule == 'gspo' else 'token',
      ),
    ),
    functools.partial(metrics_lib.trust_region_metrics, num_minibatches=1),
    optimizer,
    factories.step_config(
      num_microbatches=num_microbatches, group_size=_GROUP, buckets=buckets
    ),
    mesh,
  )
  state = TrainState(
    step=np.zeros((), np.int32),
    params=params,
    opt_state=optimizer.init(params),
    key=jax.random.PRNGKey(0),
  )
  state = jax.tree.map(np.array, state)  # The step donates what it is given.
  shardings = state_lib.shardings_of(
    state_lib.abstract_state(policy, optimizer, mesh)
  )
  step = step_lib.compile_train_step(learner, shardings, recorded=True)
  return step, lambda: jax.device_put(state, shardings)


def _step(mesh, buckets, num_microbatches, rule, order=None, layers=True):
  """(state, metrics, record) after one batch, and the batch."""
  batch = factories.make_batch(_NUM_GROUPS, _GROUP, _WIDTH, _LENGTH)
  # Four groups are short, and one row has no token.
  short = np.arange(_WIDTH + _LENGTH) < _WIDTH + 2
  keep = np.ones((_NUM_GROUPS * _GROUP, _WIDTH + _LENGTH), bool)
  keep[2:10] = short
  keep[3, _WIDTH:] = False
  batch = dataclasses.replace(
    batch,
    token_mask=batch.token_mask & keep,
    completion_mask=batch.completion_mask & keep,
  )
  if order is not None:
    batch = jax.tree.map(lambda leaf: leaf[order], batch)
  step, start = _program(mesh, buckets, num_microbatches, rule, layers)
  return step(start(), batch), batch


# Rules of every scope: a token, the tokens before it, the whole completion.
# The last one under a model, and over a mesh: no layer knows of a rule.
@pytest.mark.parametrize(
  ('rule', 'axes', 'layers'),
  [
    ('divergence', (1, 1, 1), False),
    ('cppo', (1, 1, 1), False),
    ('gspo', (1, 1, 1), False),
    ('trm_max', (2, 2, 2), True),
  ],
)
def test_a_step_is_that_of_the_padded_rows(rule, axes, layers):
  one = factories.one_device_mesh()
  plain, batch = _step(one, factories.length_buckets(), 1, rule, layers=layers)
  mesh = parallel.make_mesh(*axes, jax.devices()[: math.prod(axes)])
  got, _ = _step(mesh, _BUCKETS, 2, rule, layers=layers)
  share = 'throughput/useful_token_share'
  shares = [float(metrics.pop(share)) for _, metrics, _ in (plain, got)]
  tokens = batch.completion_mask.sum()
  assert shares[0] == pytest.approx(tokens / (_GROUP * _NUM_GROUPS * _LENGTH))
  assert shares[1] > shares[0]
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-6, rtol=1e-5),
    *jax.device_get((got, plain)),
  )


def test_the_order_of_the_groups_changes_only_the_order_of_the_record():
  rng = np.random.default_rng(3)
  groups = rng.permutation(_NUM_GROUPS)[:, None] * _GROUP
  order = (groups + rng.permutation(_GROUP)).reshape(-1)
  mesh = factories.one_device_mesh()
  rule = 'divergence'
  run = functools.partial(_step, mesh, _BUCKETS, 2, rule, layers=False)
  (state, metrics, record), _ = run()
  (other, others, shuffled), _ = run(order=order)
  record = jax.tree.map(lambda leaf: np.asarray(leaf)[order], record)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-6, rtol=1e-5),
    *jax.device_get(((other, others, shuffled), (state, metrics, record))),
  )
