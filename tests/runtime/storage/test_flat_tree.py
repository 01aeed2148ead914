from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.runtime.storage import flat_tree


class _Pair(NamedTuple):
  first: jax.Array
  second: jax.Array


def _tree():
  return {
    'pair': _Pair(first=jnp.arange(3), second=jnp.ones((2, 1), jnp.bfloat16)),
    'list': [np.float32(1.5), ()],
  }


def test_names_are_paths():
  named = flat_tree.flatten(_tree())
  assert list(named) == ['list.0', 'pair.first', 'pair.second']
  assert flat_tree.describe(named) == {
    'list.0': [[], 'float32'],
    'pair.first': [[3], 'int32'],
    'pair.second': [[2, 1], 'bfloat16'],
  }


def test_unflatten_is_the_inverse():
  tree = _tree()
  again = flat_tree.unflatten(tree, flat_tree.flatten(tree))
  assert jax.tree.structure(again) == jax.tree.structure(tree)
  for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(tree), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('impl', ['threefry2x32', 'rbg'])
@pytest.mark.parametrize('abstract', [False, True])
def test_typed_keys_are_words_and_keys_again(impl, abstract):
  key = jax.random.key(3, impl=impl)
  like = jax.ShapeDtypeStruct(key.shape, key.dtype) if abstract else key
  named = flat_tree.flatten({'key': key})
  assert named['key'].dtype == jnp.uint32
  stand_in = flat_tree.flatten({'key': like})
  assert flat_tree.describe(stand_in) == flat_tree.describe(named)
  again = flat_tree.unflatten({'key': like}, named)['key']
  assert again.dtype == key.dtype
  np.testing.assert_array_equal(
    jax.random.bits(again, (4,)), jax.random.bits(key, (4,))
  )


def test_differences_are_named():
  stored = {'a': [[2], 'float32'], 'b': [[2], 'int32'], 'c': [[], 'bool']}
  wanted = {'a': [[3], 'float32'], 'd': [[2, 4], 'int8'], 'c': [[], 'bool']}
  assert flat_tree.differences(stored, wanted) == [
    'a: stored float32[2], wanted float32[3]',
    'b: stored int32[2], wanted nothing',
    'd: stored nothing, wanted int8[2,4]',
  ]
  assert flat_tree.differences(stored, stored) == []


def test_only_fields_that_are_wanted_must_be_the_same():
  tree = {'params': {'a': np.zeros(2, np.float32)}, 'key': np.zeros(2)}
  stored = flat_tree.describe(flat_tree.flatten(tree))
  wanted = flat_tree.flatten({'params': tree['params']})
  flat_tree.check_same(stored, wanted, 3)
  wanted = flat_tree.flatten({'params': tree['params'], 'queue': [1.0]})
  match = r'step 3 is of another .* queue\.0: stored nothing, wanted float'
  with pytest.raises(ValueError, match=match):
    flat_tree.check_same(stored, wanted, 3)
