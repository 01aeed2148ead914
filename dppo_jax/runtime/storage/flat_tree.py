"""Pytrees as flat dicts of named arrays, as they are stored.

A name is the path of a leaf, 'params.embedding' or 'opt_state.0.mu.embedding',
independent of the classes of the containers. Typed PRNG keys are stored as
their uint32 key data.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.base import Array


def flatten(tree: Any) -> dict[str, Any]:
  """Leaves by name, in the order of the tree.

  Args:
    tree: of arrays or `jax.ShapeDtypeStruct`s.
  """
  return {
    _name(path): _without_key_type(leaf)
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
  }


def unflatten(like: Any, named: Mapping[str, Any]) -> Any:
  """Inverse of `flatten`, in the containers and key types of `like`."""

  def leaf_of(path: Any, leaf: Any) -> Any:
    value = named[_name(path)]
    if _is_key(leaf):
      return jax.random.wrap_key_data(value, impl=_key_impl(leaf))
    return value

  return jax.tree_util.tree_map_with_path(leaf_of, like)


def describe(named: Mapping[str, Any]) -> dict[str, list[Any]]:
  """Shape and dtype by name, as JSON values."""
  return {
    name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in named.items()
  }


def differences(
  stored: Mapping[str, Sequence[Any]], wanted: Mapping[str, Sequence[Any]]
) -> list[str]:
  """Differences of two descriptions.

  Returns:
    One line per name that only one side has, or whose shape or dtype differs.
  """
  return [
    f'{name}: stored {_show(stored, name)}, wanted {_show(wanted, name)}'
    for name in sorted(stored.keys() | wanted.keys())
    if _show(stored, name) != _show(wanted, name)
  ]


def check_same(
  stored: Mapping[str, Sequence[Any]], wanted: Mapping[str, Any], step: int
) -> None:
  """Raises if the arrays of a checkpoint are not the wanted ones.

  Args:
    stored: from `describe`; fields that are not wanted are ignored.
    wanted: from `flatten`.
    step: of the checkpoint, for the message.

  Raises:
    ValueError: lists what differs.
  """
  fields = {name.partition('.')[0] for name in wanted}
  stored = {k: v for k, v in stored.items() if k.partition('.')[0] in fields}
  lines = differences(stored, describe(wanted))
  if lines:
    more = f'; and {len(lines) - 5} more' if len(lines) > 5 else ''
    raise ValueError(
      f'checkpoints: step {step} is of another model, optimizer or'
      f' sampling.lag: {"; ".join(lines[:5])}{more}. Use the configuration it'
      ' was saved with, or another workdir.'
    )


def _show(description: Mapping[str, Sequence[Any]], name: str) -> str:
  if name not in description:
    return 'nothing'
  shape, dtype = description[name]
  return f'{dtype}[{",".join(map(str, shape))}]'


def _name(path: Any) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='.')


def _is_key(leaf: Any) -> bool:
  dtype = getattr(leaf, 'dtype', None)
  return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _without_key_type(leaf: Any) -> Any:
  if not _is_key(leaf):
    return leaf if hasattr(leaf, 'dtype') else np.asarray(leaf)
  if not isinstance(leaf, jax.ShapeDtypeStruct):
    return jax.random.key_data(leaf)
  words = jax.eval_shape(jax.random.key_data, leaf)
  return jax.ShapeDtypeStruct(words.shape, words.dtype, sharding=leaf.sharding)


def _key_impl(leaf: Any) -> Any:
  """`jax.random.key_impl`, also of a `ShapeDtypeStruct`."""
  found: list[Any] = []

  def trace(key: Array) -> Array:
    found.append(jax.random.key_impl(key))
    return key

  jax.eval_shape(trace, leaf)
  return found[0]
