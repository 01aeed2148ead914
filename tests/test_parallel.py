import re

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from dppo_jax import parallel
from tests.support import tpus


@pytest.mark.parametrize(
  ('sizes', 'want'),
  [
    ((8, 1, 1), (8, 1, 1)),
    ((2, 2, 2), (2, 2, 2)),
    ((1, 2, 4), (1, 2, 4)),
    ((-1, 1, 1), (8, 1, 1)),
    ((-1, 2, 2), (2, 2, 2)),
    ((2, -1, 1), (2, 4, 1)),
    ((4, 2, -1), (4, 2, 1)),
  ],
)
def test_mesh_sizes(sizes, want):
  mesh = parallel.make_mesh(*sizes)
  assert dict(mesh.shape) == dict(
    zip(('data', 'fsdp', 'tensor', 'expert'), (*want, 1), strict=True)
  )
  assert sorted(d.id for d in mesh.devices.flat) == list(range(8))


def test_mesh_over_some_of_the_devices():
  devices = jax.devices()[2:6]
  mesh = parallel.make_mesh(-1, 2, 1, devices)
  assert mesh.devices.shape == (2, 2, 1, 1)
  assert set(mesh.devices.flat) == set(devices)


@pytest.mark.parametrize(
  'sizes',
  [
    (4, 1, 1),
    (3, 1, 1),
    (-1, 3, 1),
    (-1, -1, 8),
    (-1, -1, 2),
    (0, 8, 1),
    (-1, 0, 1),
    (-1, -8, 1),
    (-2, -4, 1),
  ],
)
def test_mesh_that_does_not_fit(sizes):
  data, fsdp, tensor = sizes
  message = (
    f'mesh: data={data}, fsdp={fsdp}, tensor={tensor}, expert=1 does not'
    ' multiply to the 8 devices present; set one axis to -1 to let it take'
    ' what is left'
  )
  with pytest.raises(ValueError, match=re.escape(message)):
    parallel.make_mesh(*sizes)


def test_axis_sizes_need_no_devices():
  assert parallel.axis_sizes(-1, 2, 4, num_devices=64) == (8, 2, 4, 1)
  assert parallel.axis_sizes(1, 1, -1, num_devices=1) == (1, 1, 1, 1)
  with pytest.raises(ValueError, match='the 6 devices present'):
    parallel.axis_sizes(-1, 4, 1, num_devices=6)


def test_experts_share_out_the_batch():
  assert parallel.axis_sizes(-1, 1, 2, num_devices=8, expert=2) == (2, 1, 2, 2)
  mesh = parallel.make_mesh(1, 2, 1, expert=4)
  assert dict(mesh.shape) == {'data': 1, 'fsdp': 2, 'expert': 4, 'tensor': 1}
  assert parallel.num_batch_shards(mesh) == 8
  array = jax.device_put(np.ones((8, 6)), parallel.batch_sharding(mesh))
  assert {s.data.shape for s in array.addressable_shards} == {(1, 6)}
  with pytest.raises(ValueError, match='expert=3 does not multiply'):
    parallel.make_mesh(-1, 1, 1, expert=3)


def test_replicated_is_whole_everywhere():
  mesh = parallel.make_mesh(2, 2, 2)
  array = jax.device_put(np.ones((4, 6)), parallel.replicated(mesh))
  assert {s.data.shape for s in array.addressable_shards} == {(4, 6)}
  assert len(array.addressable_shards) == 8


def test_batch_is_split_over_data_and_fsdp():
  mesh = parallel.make_mesh(2, 2, 2)
  array = jax.device_put(np.ones((8, 6)), parallel.batch_sharding(mesh))
  assert {s.data.shape for s in array.addressable_shards} == {(2, 6)}


@pytest.mark.parametrize(
  ('sizes', 'want'), [((8, 1, 1), 8), ((2, 2, 2), 4), ((1, 1, 8), 1)]
)
def test_number_of_batch_shards(sizes, want):
  mesh = parallel.make_mesh(*sizes)
  assert parallel.num_batch_shards(mesh) == want
  rows = jax.device_put(np.ones((16, 2)), parallel.batch_sharding(mesh))
  assert rows.addressable_shards[0].data.shape[0] == 16 // want


# What one device holds of an array [8, 8] on a mesh of (2, 2, 2).
@pytest.mark.parametrize(
  ('names', 'spec', 'shard'),
  [
    (('embed', 'mlp'), PartitionSpec('fsdp', 'tensor'), (4, 4)),
    (('vocab', 'embed'), PartitionSpec('tensor', 'fsdp'), (4, 4)),
    (('embed', 'heads'), PartitionSpec('fsdp', 'tensor'), (4, 4)),
    (('embed', 'kv_heads'), PartitionSpec('fsdp', 'tensor'), (4, 4)),
    (('heads', 'head_dim'), PartitionSpec('tensor', None), (4, 8)),
    (('layers', 'norm'), PartitionSpec(None, None), (8, 8)),
    (('batch', None), PartitionSpec(('data', 'fsdp', 'expert'), None), (2, 8)),
  ],
)
def test_named_axes_are_split_as_the_table_says(names, spec, shard):
  mesh = parallel.make_mesh(2, 2, 2)
  leaf = jax.ShapeDtypeStruct((8, 8), np.float32)
  tree = {'kernel': nn.LogicallyPartitioned(leaf, names=names)}
  shardings = parallel.tree_shardings(mesh, tree)
  assert shardings['kernel'].mesh == mesh
  assert shardings['kernel'].spec == spec
  array = jax.device_put(np.ones((8, 8)), shardings['kernel'])
  assert array.addressable_shards[0].data.shape == shard


def test_bare_leaves_are_replicated_and_the_tree_keeps_its_form():
  mesh = parallel.make_mesh(2, 2, 2)
  leaf = jax.ShapeDtypeStruct((8,), np.float32)
  boxed = {
    'step': jax.ShapeDtypeStruct((), np.int32),
    'layer': {'scale': nn.LogicallyPartitioned(leaf, names=('norm',))},
    'pair': (leaf, nn.LogicallyPartitioned(leaf, names=('vocab',))),
  }
  shardings = parallel.tree_shardings(mesh, boxed)
  assert jax.tree.structure(shardings) == jax.tree.structure(nn.unbox(boxed))
  assert shardings['step'].spec == PartitionSpec()
  assert shardings['pair'][0].spec == PartitionSpec()
  assert shardings['pair'][1].spec == PartitionSpec('tensor')


def test_every_mesh_axis_of_the_table_exists():
  for _, axes in parallel.AXIS_RULES:
    axes = (axes,) if isinstance(axes, str) else axes or ()
    assert set(axes) <= set(parallel.MESH_AXES)


class _Chip:
  platform = 'tpu'

  def __init__(self, slice_index):
    self.slice_index = slice_index


@pytest.mark.parametrize(
  ('sizes', 'inner', 'outer'),
  [
    ((4, 2, 1), (1, 2, 1, 1), (4, 1, 1, 1)),
    ((1, 8, 1), (1, 2, 1, 1), (1, 4, 1, 1)),  # No data axis to split.
  ],
)
def test_slices_split_the_rows(monkeypatch, sizes, inner, outer):
  chips = [_Chip(i // 2) for i in range(8)]
  asked = []

  def make(*args, devices, **options):
    asked.append(args)
    return np.array(devices).reshape(8, 1, 1, 1)

  monkeypatch.setattr(parallel.mesh_utils, 'create_hybrid_device_mesh', make)
  monkeypatch.setattr(parallel, 'Mesh', lambda grid, axes: grid)
  parallel.make_mesh(*sizes, chips)
  assert asked == [(inner, outer)]


def test_slices_that_no_axis_of_rows_is_a_multiple_of():
  chips = [_Chip(i // 2) for i in range(8)]
  with pytest.raises(ValueError, match=r'4 slices.*make mesh.data a multiple'):
    parallel.make_mesh(1, 2, 4, chips)


def test_rows_are_split_where_they_can_be():
  mesh = parallel.make_mesh(2, 2, 2)
  split = jax.jit(lambda x: parallel.constrain_rows(mesh, x))
  by_rows = parallel.batch_sharding(mesh)
  rows = split(np.ones((8, 3)))
  assert rows.sharding.is_equivalent_to(by_rows, 2)
  assert rows.addressable_shards[0].data.shape == (2, 3)
  odd = np.ones((3, 3))
  assert parallel.constrain_rows(mesh, odd) is odd
  assert parallel.constrain_rows(None, odd) is odd


def test_columns_are_split_where_they_can_be():
  mesh = parallel.make_mesh(2, 2, 2)

  def parts(shape):
    def constrain(x):
      return parallel.constrain_rows(mesh, x, columns=True)

    return jax.jit(constrain)(np.ones(shape)).addressable_shards[0].data.shape

  assert parts((8, 6, 3)) == (2, 3, 3)
  assert parts((8, 5, 3)) == (2, 5, 3)  # An odd number of columns.


def test_devices_of_an_array_keep_their_order():
  devices = np.array(jax.devices())[::-1].reshape(2, 2, 1, 2)
  mesh = parallel.make_mesh(2, 2, 2, devices)
  assert [d.id for d in mesh.devices.flat] == list(range(8))[::-1]


@tpus.needs_libtpu
@pytest.mark.parametrize('sizes', [(2, 4, 4), (4, 8, 1), (1, 8, 4)])
def test_no_slice_shares_a_row_of_the_mesh_with_another(sizes):
  """Two slices of 16 chips, as libtpu describes them."""
  data, fsdp, tensor = sizes
  code = (
    'from dppo_jax import parallel\n'
    'from dppo_jax.planning.aot import topologies as t\n'
    "devices = t.describe(t.parse('v5e:4x4', 2))\n"
    f'grid = parallel.make_mesh({data}, {fsdp}, {tensor}, devices).devices\n'
    'outer = grid if grid.shape[0] > 1 else grid[0]\n'
    'half = len(outer) // 2\n'
    'for part in (outer[:half], outer[half:]):\n'
    '  print(*{d.slice_index for d in part.flat})\n'
  )
  assert sorted(tpus.run(code)) == ['0', '1']
