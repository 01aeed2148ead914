import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np
import optax
import pytest

from dppo_jax import parallel
from dppo_jax.base import Stream, stream_key
from dppo_jax.learner import optimizer as optimizer_lib
from dppo_jax.learner import state as state_lib
from dppo_jax.models.policy import make_policy
from tests.support import factories

_SEED = 3


@pytest.fixture(scope='module')
def policy():
  return make_policy(factories.transformer_config(qkv_bias=True))


@pytest.fixture(scope='module')
def optimizer():
  return optimizer_lib.make_optimizer(factories.optimizer_config())


@pytest.fixture(scope='module')
def mesh():
  return parallel.make_mesh(2, 2, 2)


@pytest.fixture(scope='module')
def born(policy, optimizer, mesh):
  """State and shardings on eight devices."""
  shardings = state_lib.shardings_of(
    state_lib.abstract_state(policy, optimizer, mesh)
  )
  state = state_lib.init_state(policy, optimizer, shardings, _SEED)
  return state, shardings


def test_state_starts_at_zero(born):
  state, _ = born
  assert int(state.step) == 0
  assert state.step.dtype == jnp.int32
  np.testing.assert_array_equal(state.key, jax.random.PRNGKey(_SEED))
  assert {str(leaf.dtype) for leaf in jax.tree.leaves(state.params)} == {
    'float32'
  }
  for name in ('mu', 'nu'):
    moments = optax.tree.get(state.opt_state, name)
    assert optax.tree.norm(moments) == 0.0
    assert jax.tree.structure(moments) == jax.tree.structure(state.params)


def test_every_array_is_born_where_it_lives(born):
  state, shardings = born
  jax.tree.map(
    lambda leaf, sharding: _same(leaf.sharding, sharding, leaf.ndim),
    state,
    shardings,
  )
  attention = state.params['layers']['attention']
  parts = {
    'embedding': (state.params['embedding'], ('tensor', 'fsdp')),
    'query': (attention['query']['kernel'], (None, 'fsdp', 'tensor')),
    'bias': (attention['key']['bias'], (None, 'tensor')),
    'output': (attention['output']['kernel'], (None, 'tensor', None, 'fsdp')),
    'norm': (state.params['final_norm']['scale'], ()),
    'moment': (
      optax.tree.get(state.opt_state, 'nu')['embedding'],
      ('tensor', 'fsdp'),
    ),
    'step': (state.step, ()),
  }
  for leaf, spec in parts.values():
    expected = jax.sharding.NamedSharding(
      leaf.sharding.mesh, PartitionSpec(*spec)
    )
    _same(leaf.sharding, expected, leaf.ndim)
  assert state.params['embedding'].addressable_shards[0].data.shape == (12, 8)


def _same(got, expected, rank):
  assert got.is_equivalent_to(expected, rank), (got, expected)


def test_parameters_do_not_depend_on_the_mesh(policy, optimizer, born):
  mesh = factories.one_device_mesh()
  shardings = state_lib.shardings_of(
    state_lib.abstract_state(policy, optimizer, mesh)
  )
  alone = state_lib.init_state(policy, optimizer, shardings, _SEED)
  jax.tree.map(np.testing.assert_array_equal, alone.params, born[0].params)


def test_parameters_come_from_the_stream_of_the_seed(policy, born):
  params = born[0].params
  key = stream_key(jax.random.PRNGKey(_SEED), Stream.INIT, 0)
  embedding = jax.jit(lambda key: policy.init(key)['embedding'].value)(key)
  np.testing.assert_allclose(embedding, params['embedding'], rtol=1e-6)
  # Layers are scanned, and still each has its own key.
  kernel = np.asarray(params['layers']['mlp']['up']['kernel'])
  assert np.abs(kernel[0] - kernel[1]).max() > 0.1


def test_every_stream_and_step_has_a_key_of_its_own():
  key = jax.random.PRNGKey(_SEED)
  keys = {
    tuple(stream_key(key, stream, step).tolist())
    for stream in Stream
    for step in range(3)
  }
  assert len(keys) == 3 * len(Stream)


def test_restart_keeps_parameters_only(born):
  state, shardings = born
  # As after seven steps; a copy, since the state passed in is consumed.
  state = jax.tree.map(lambda leaf: np.array(leaf) + leaf.dtype.type(7), state)
  state = jax.device_put(state, shardings)
  params = jax.tree.map(np.array, state.params)
  key = np.array(state.key)

  other = optimizer_lib.make_optimizer(
    factories.optimizer_config(learning_rate=0.5, schedule='cosine')
  )
  again = state_lib.restart(other, state, shardings)
  assert int(again.step) == 0
  jax.tree.map(np.testing.assert_array_equal, again.params, params)
  np.testing.assert_array_equal(again.key, key)
  assert optax.tree.norm(optax.tree.get(again.opt_state, 'mu')) == 0.0
  counts = optax.tree.get_all_with_path(again.opt_state, 'count')
  assert [int(count) for _, count in counts] == [0] * len(counts)
  assert state.params['embedding'].is_deleted()


def test_parameters_from_elsewhere_are_adopted(born, policy, optimizer):
  state, shardings = born
  params = jax.tree.map(lambda leaf: leaf + 1.0, state.params)
  expected = jax.tree.map(np.asarray, params)
  got = state_lib.adopt(optimizer, params, shardings, _SEED)
  jax.tree.map(np.testing.assert_array_equal, got.params, expected)
  jax.tree.map(np.testing.assert_array_equal, got.opt_state, state.opt_state)
  np.testing.assert_array_equal(got.key, state.key)
  assert int(got.step) == 0
