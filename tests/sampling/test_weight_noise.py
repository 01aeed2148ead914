import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.sampling.weight_noise import add_noise

_KEY = jax.random.PRNGKey(7)


def _params():
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(2, 64, 32)).astype(np.float32)
  return {
    'embedding': jnp.ones((64, 32)),
    'layers': {
      'up': {'kernel': jnp.asarray(kernel), 'bias': jnp.ones((2, 32))},
      'norm': {'scale': jnp.ones((2, 32))},
    },
  }


def test_noise_has_the_asked_for_standard_deviation():
  params = _params()
  got = add_noise(params, 0.05, _KEY)
  for before, after in (
    (params['embedding'], got['embedding']),
    (params['layers']['up']['kernel'], got['layers']['up']['kernel']),
  ):
    moved = np.asarray(after / before) - 1.0
    assert moved.std() == pytest.approx(0.05, rel=0.05)
    assert abs(moved.mean()) < 5 * 0.05 / np.sqrt(moved.size)
    assert after.dtype == before.dtype


def test_norms_and_biases_have_none():
  params, got = _params(), add_noise(_params(), 0.5, _KEY)
  for path in (('up', 'bias'), ('norm', 'scale')):
    before, after = (tree['layers'][path[0]][path[1]] for tree in (params, got))
    np.testing.assert_array_equal(before, after)


def test_all_matrices_of_an_adapter_have_noise():
  adapter = {'layers': {'up': {'lora_b': jnp.ones((2, 4, 8))}}}
  assert add_noise(adapter, 0.1, _KEY) is not adapter
  plain, whole = (
    add_noise(adapter, 0.1, _KEY, adapter=is_adapter)['layers']['up']['lora_b']
    for is_adapter in (False, True)
  )
  assert np.all(np.asarray(plain) == 1)
  assert np.all(np.asarray(whole) != 1)


def test_noise_follows_from_key_and_name_alone():
  """Neither the other parameters nor the order of calls changes it."""
  params = _params()
  both = add_noise(params, 0.1, _KEY)
  alone = add_noise({'embedding': params['embedding']}, 0.1, _KEY)
  np.testing.assert_array_equal(both['embedding'], alone['embedding'])
  renamed = add_noise({'head': params['embedding']}, 0.1, _KEY)
  assert not np.allclose(renamed['head'], both['embedding'])
  other = add_noise(params, 0.1, jax.random.PRNGKey(8))
  assert not np.allclose(other['embedding'], both['embedding'])


def test_noise_does_not_depend_on_the_layout():
  mesh = parallel.make_mesh(1, 1, 2, jax.devices()[:2])
  sharding = parallel.head_sharding(mesh)
  head = {'head': jnp.ones((64, 32))}
  run = jax.jit(lambda tree: add_noise(tree, 0.1, _KEY), out_shardings=sharding)
  spread = run(jax.device_put(head, sharding))
  whole = jax.jit(lambda tree: add_noise(tree, 0.1, _KEY))(head)
  assert len(spread['head'].sharding.device_set) == 2
  np.testing.assert_array_equal(spread['head'], whole['head'])


def test_no_noise_changes_nothing():
  params = _params()
  got = add_noise(params, 0.0, _KEY)
  jax.tree.map(np.testing.assert_array_equal, params, got)
