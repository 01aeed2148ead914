import jax
import numpy as np

from dppo_jax import parallel
from dppo_jax.runtime.programs import digests


def _tree():
  rng = np.random.default_rng(0)
  a, b = rng.standard_normal((2, 8, 4, 6)).astype(np.float32)
  return {'a': a, 'b': {'c': b, 'd': np.ones(4, np.float32)}}


def _sums(tree):
  return jax.device_get(jax.jit(digests.sums)(tree))


def test_a_tree_does_not_differ_from_itself():
  found = _sums(_tree())
  assert digests.differences(found, found) == []
  assert found.keys() == {'a', 'b.c', 'b.d'}


def test_each_leaf_that_differs_is_named_with_its_kind():
  whole = _tree()
  swapped, permuted, other = (jax.tree.map(np.copy, whole) for _ in range(3))
  swapped['a'], swapped['b']['c'] = whole['b']['c'], whole['a']
  permuted['b']['c'] = whole['b']['c'][:, ::-1]
  other['a'][3, 1, 2] = np.nextafter(other['a'][3, 1, 2], np.float32(9))
  expected = _sums(whole)
  for tree, told in (
    (swapped, ['a holds b.c', 'b.c holds a']),
    (permuted, ['b.c is permuted']),
    (other, ['a differs']),
  ):
    assert digests.differences(_sums(tree), expected) == told
    names = [digests.digest(t, _sums(t)) for t in (tree, whole)]
    assert names[0] != names[1]


def test_the_mesh_does_not_count():
  whole = _tree()
  sharding = jax.sharding.NamedSharding(
    parallel.make_mesh(2, 2, 2), jax.sharding.PartitionSpec('fsdp', 'tensor')
  )
  spread = {**whole, 'a': jax.device_put(whole['a'], sharding)}
  assert digests.differences(_sums(spread), _sums(whole)) == []
