import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dppo_jax.learner import optimizer as optimizer_lib
from dppo_jax.learner.optimizer import make_optimizer, make_schedule
from tests.support import factories

_PARAMS = {
  'embedding': jnp.full((2, 2), 2.0),
  'head': jnp.full((2, 2), 2.0),
  'layers': {
    'key': {'kernel': jnp.full((2, 2), 2.0), 'bias': jnp.full((2,), 2.0)},
    'norm': {'scale': jnp.full((2,), 2.0)},
  },
}


def _rates(updates, **overrides):
  schedule = make_schedule(factories.optimizer_config(**overrides))
  return [pytest.approx(float(schedule(jnp.asarray(u)))) for u in updates]


def test_schedules_by_values():
  at = [0, 25, 50, 100, 150]
  common = dict(learning_rate=0.4, final_fraction=0.25, num_updates=100)
  assert _rates(at, schedule='constant', **common) == [0.4] * 5
  assert _rates(at, schedule='linear', **common) == [
    0.4, 0.325, 0.25, 0.1, 0.1,
  ]  # fmt: skip
  # Half a cosine from .4 to .1: .1 + .15 (1 + cos(pi u / 100)).
  quarter = 0.1 + 0.15 * (1.0 + np.sqrt(0.5))
  assert _rates(at, schedule='cosine', **common) == [
    0.4, quarter, 0.25, 0.1, 0.1,
  ]  # fmt: skip


def test_warmup_rises_from_zero_and_shortens_the_decay():
  common = dict(learning_rate=0.4, final_fraction=0.0, num_updates=100)
  common |= dict(num_warmup_updates=20)
  at = [0, 5, 20, 60, 100]
  assert _rates(at, schedule='linear', **common) == [0, 0.1, 0.4, 0.2, 0]
  assert _rates(at, schedule='constant', **common) == [0, 0.1, 0.4, 0.4, 0.4]


def test_schedules_are_the_rows_of_the_config():
  assert set(optimizer_lib.SCHEDULES) == {'constant', 'linear', 'cosine'}


def _ones(value=1.0):
  return {
    'embedding': jnp.full((2, 2), value),
    'head': jnp.full((2, 2), value),
    'layers': {
      'key': {'kernel': jnp.full((2, 2), value), 'bias': jnp.full((2,), value)},
      'norm': {'scale': jnp.full((2,), value)},
    },
  }


def test_adamw_by_hand():
  """m = .1 g, v = .01 g^2; two updates with bias correction."""
  config = factories.optimizer_config(
    learning_rate=0.1, b1=0.9, b2=0.99, epsilon=0.5, clip_norm=float('inf')
  )
  optimizer = make_optimizer(config)
  params = {'kernel': jnp.array([1.0])}
  state = optimizer.init(params)
  m, v, expected = 0.0, 0.0, 1.0
  for step, g in enumerate([2.0, -1.0], start=1):
    updates, state = optimizer.update({'kernel': jnp.array([g])}, state, params)
    params = optax.apply_updates(params, updates)
    m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
    m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.99**step)
    expected -= 0.1 * m_hat / (np.sqrt(v_hat) + 0.5)
    assert float(params['kernel'][0]) == pytest.approx(expected, rel=1e-5)


def test_weight_decay_skips_norms_and_biases():
  config = factories.optimizer_config(learning_rate=0.1, weight_decay=0.5)
  optimizer = make_optimizer(config)
  updates, _ = optimizer.update(_ones(0.0), optimizer.init(_PARAMS), _PARAMS)
  decayed = -0.1 * 0.5 * 2.0
  np.testing.assert_allclose(updates['embedding'], decayed, rtol=1e-6)
  np.testing.assert_allclose(updates['head'], decayed, rtol=1e-6)
  key = updates['layers']['key']
  np.testing.assert_allclose(key['kernel'], decayed, rtol=1e-6)
  assert not key['bias'].any()
  assert not updates['layers']['norm']['scale'].any()


def test_both_factors_of_an_adapter_decay():
  config = factories.optimizer_config(learning_rate=0.1, weight_decay=0.5)
  optimizer = make_optimizer(config)
  ones = np.ones((2, 3), np.float32)
  params = {'query': {'lora_a': ones, 'lora_b': ones.T}}
  zero = jax.tree.map(np.zeros_like, params)
  updates, _ = optimizer.update(zero, optimizer.init(params), params)
  for leaf in jax.tree.leaves(updates):
    np.testing.assert_allclose(leaf, -0.1 * 0.5, rtol=1e-6)


@pytest.mark.parametrize('clip_norm', [1.0, float('inf')])
def test_clipping_by_the_global_norm(clip_norm):
  """Seen through the first moment, .1 of the gradient."""
  config = factories.optimizer_config(clip_norm=clip_norm)
  optimizer = make_optimizer(config)
  gradient = _ones(3.0)
  _, state = optimizer.update(gradient, optimizer.init(_PARAMS), _PARAMS)
  moment = optax.tree.get(state.inner_state, 'mu')
  expected = min(1.0, clip_norm / float(optax.tree.norm(gradient))) * 3.0
  np.testing.assert_allclose(moment['head'], 0.1 * expected, rtol=1e-5)
  np.testing.assert_allclose(
    moment['layers']['norm']['scale'], 0.1 * expected, rtol=1e-5
  )


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_changes_nothing_but_counts(bad):
  config = factories.optimizer_config(
    learning_rate=1.0, schedule='linear', final_fraction=0.0, num_updates=10
  )
  optimizer = make_optimizer(config)

  def counts(state):
    return [int(count) for count in optimizer_lib.nonfinite_counts(state)]

  def rate(state):
    return float(optimizer_lib.learning_rate_of(config, state))

  _, state = optimizer.update(_ones(), optimizer.init(_PARAMS), _PARAMS)
  assert counts(state) == [0, 0]
  assert rate(state) == pytest.approx(0.9)
  moments = optax.tree.get(state.inner_state, 'mu')
  broken = _ones()
  broken['layers']['norm']['scale'] = jnp.array([1.0, bad])
  for skipped in (1, 2):
    updates, state = optimizer.update(broken, state, _PARAMS)
    assert optax.tree.norm(updates) == 0.0
    assert counts(state) == [skipped, skipped]
    assert rate(state) == pytest.approx(0.9)
  after = optax.tree.get(state.inner_state, 'mu')
  np.testing.assert_array_equal(after['head'], moments['head'])
  updates, state = optimizer.update(_ones(), state, _PARAMS)
  assert optax.tree.norm(updates) > 0
  assert counts(state) == [0, 2]
  assert rate(state) == pytest.approx(0.8)


def test_skipping_never_gives_up():
  """The run decides when to stop; the optimizer lets nothing through."""
  optimizer = make_optimizer(factories.optimizer_config())
  state = optimizer.init(_PARAMS)
  state = state._replace(notfinite_count=jnp.asarray(10**6, jnp.int32))
  updates, _ = optimizer.update(_ones(np.nan), state, _PARAMS)
  assert optax.tree.norm(updates) == 0.0
