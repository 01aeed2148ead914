"""Rows of eight devices, which two processes share in thought."""

from typing import NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np
import pytest

from dppo_jax.runtime.hosts import coordination, host_rows


def _sharding(*spec, shape=(4, 2)):
  mesh = Mesh(np.array(jax.devices()).reshape(shape), ('data', 'tensor'))
  return NamedSharding(mesh, PartitionSpec(*spec))


def test_alone_everything_is_read_and_passed_on():
  tree = {'a': np.arange(8), 'b': np.ones((8, 2))}
  by_rows = _sharding('data')
  assert host_rows.put(by_rows, tree) is tree
  assert host_rows.put_rows(by_rows, lambda rows: (rows, tree), 8) == (
    None,
    tree,
  )
  assert host_rows.own_rows(by_rows, 8) is None
  assert host_rows.total(tree) is tree
  assert host_rows.share(['x', 'y'], None, 2) == ['x', 'y']
  placed = jax.device_put(tree, by_rows)
  for got in (host_rows.read(by_rows, placed), host_rows.fetch(placed)):
    np.testing.assert_array_equal(got['a'], tree['a'])
    np.testing.assert_array_equal(got['b'], tree['b'])


class _Device(NamedTuple):
  id: int
  process_index: int


class _Sharding:
  """Devices 0 to 3 hold two rows each, the last two also those of device 0."""

  def __init__(self, process_of):
    self._devices = [_Device(i, p) for i, p in enumerate(process_of)]

  def devices_indices_map(self, shape):
    assert shape == (8,)
    slices = [slice(2 * i, 2 * i + 2) for i in range(4)] + [slice(0, 2)] * 2
    return {
      device: (index,)
      for device, index in zip(self._devices, slices, strict=True)
    }


@pytest.mark.parametrize(
  ('process_of', 'index', 'rows'),
  [
    ((0, 0, 1, 1, 1, 1), 0, [0, 1, 2, 3]),
    ((0, 0, 1, 1, 1, 1), 1, [4, 5, 6, 7]),  # Not the copies of 0 and 1.
    ((1, 0, 1, 0, 1, 1), 0, [2, 3, 6, 7]),  # In any order of devices.
    ((1, 0, 1, 0, 1, 1), 1, [0, 1, 4, 5]),
  ],
)
def test_a_row_is_read_once(monkeypatch, process_of, index, rows):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(jax, 'process_index', lambda: index)
  got = host_rows.own_rows(_Sharding(process_of), 8)
  assert got.tolist() == rows


def test_held_rows_are_those_of_the_local_devices():
  by_rows = _sharding('data')
  assert host_rows.held_rows(by_rows, 8).tolist() == list(range(8))


def test_findings_meet(monkeypatch):
  theirs = b'[[0, 3], ["a", null]]'
  monkeypatch.setattr(coordination, 'gather', lambda mine: [mine, theirs])
  got = host_rows.share([['b', 0.1], 'c'], np.array([1, 2]), 4)
  assert got == ['a', ['b', 0.1], 'c', None]
