from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.runtime import named_arrays


class _Pair(NamedTuple):
  first: jax.Array
  second: jax.Array


def _tree():
  return {
    'pair': _Pair(first=jnp.arange(3), second=jnp.ones((2, 1), jnp.bfloat16)),
    'list': [np.float32(1.5), ()],
  }


def test_names_are_paths():
  named = named_arrays.flatten(_tree())
  assert list(named) == ['list.0', 'pair.first', 'pair.second']
  assert named_arrays.describe(named) == {
    'list.0': [[], 'float32'],
    'pair.first': [[3], 'int32'],
    'pair.second': [[2, 1], 'bfloat16'],
  }


def test_unflatten_is_the_inverse():
  tree = _tree()
  again = named_arrays.unflatten(tree, named_arrays.flatten(tree))
  assert jax.tree.structure(again) == jax.tree.structure(tree)
  for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(tree), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('impl', ['threefry2x32', 'rbg'])
@pytest.mark.parametrize('abstract', [False, True])
def test_typed_keys_are_words_and_keys_again(impl, abstract):
  key = jax.random.key(3, impl=impl)
  like = jax.ShapeDtypeStruct(key.shape, key.dtype) if abstract else key
  named = named_arrays.flatten({'key': key})
  assert named['key'].dtype == jnp.uint32
  stand_in = named_arrays.flatten({'key': like})
  assert named_arrays.describe(stand_in) == named_arrays.describe(named)
  again = named_arrays.unflatten({'key': like}, named)['key']
  assert again.dtype == key.dtype
  np.testing.assert_array_equal(
    jax.random.bits(again, (4,)), jax.random.bits(key, (4,))
  )


def test_differences_name_what_differs():
  stored = {'a': [[2], 'float32'], 'b': [[2], 'int32'], 'c': [[], 'bool']}
  wanted = {'a': [[3], 'float32'], 'd': [[2, 4], 'int8'], 'c': [[], 'bool']}
  assert named_arrays.differences(stored, wanted) == [
    'a: stored float32[2], wanted float32[3]',
    'b: stored int32[2], wanted nothing',
    'd: stored nothing, wanted int8[2,4]',
  ]
  assert named_arrays.differences(stored, stored) == []


def test_only_fields_that_are_wanted_must_be_the_same():
  tree = {'params': {'a': np.zeros(2, np.float32)}, 'key': np.zeros(2)}
  stored = named_arrays.describe(named_arrays.flatten(tree))
  wanted = named_arrays.flatten({'params': tree['params']})
  named_arrays.check_same(stored, wanted, 3)
  wanted = named_arrays.flatten({'params': tree['params'], 'in_flight': [1.0]})
  match = r'step 3 is of another .* in_flight\.0: stored nothing, wanted float'
  with pytest.raises(ValueError, match=match):
    named_arrays.check_same(stored, wanted, 3)
