"""Where arrays live: the mesh, and the table from logical to mesh axes.

A parameter names its axes where it is defined ('embed', 'heads', …); one table
says which mesh axis each of them is split over. Changing a sharding is
changing a row.
"""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from dppo_jax.base import Array


@dataclasses.dataclass(frozen=True)
class VocabularyAxes:
  """Where rows and columns of the vocabulary live.

  Attributes:
    mesh: devices.
    rows: mesh axes over which rows are split.
    vocabulary: mesh axis over which columns are split.
  """

  mesh: Mesh
  rows: tuple[str, ...]
  vocabulary: str

  @property
  def num_shards(self) -> int:
    """T, devices that share the vocabulary."""
    return int(self.mesh.shape[self.vocabulary])

  def index(self) -> Array | int:
    """Number of this device among those, inside a `shard_map`."""
    return 0 if self.num_shards == 1 else jax.lax.axis_index(self.vocabulary)

  def reduce_max(self, x: Array) -> Array:
    """Maximum over the devices that share the vocabulary."""
    return x if self.num_shards == 1 else jax.lax.pmax(x, self.vocabulary)

  def reduce_sum(self, x: Array) -> Array:
    """Sum over the devices that share the vocabulary."""
    return x if self.num_shards == 1 else jax.lax.psum(x, self.vocabulary)

  def sum_rows(self, x: Array) -> Array:
    """Sum over the devices that share the rows."""
    spread = tuple(axis for axis in self.rows if self.mesh.shape[axis] > 1)
    return jax.lax.psum(x, spread) if spread else x

  def gather(self, x: Array) -> Array:
    """[b, n] -> [b, T n], the devices' columns in order."""
    if self.num_shards == 1:
      return x
    return jax.lax.all_gather(x, self.vocabulary, axis=1, tiled=True)


# Of a mesh, to be arranged or as they are arranged; None for all that are here.
Devices = Sequence[Any] | np.ndarray | None

MESH_AXES = ('data', 'fsdp', 'expert', 'tensor')
# What the rows of a batch are split over. Devices that share out experts have
# tokens of their own, and exchange them at a sparse layer only.
BATCH_AXES = ('data', 'fsdp', 'expert')
# What the rows of a sparse layer are split over: every expert shard sees them
# all. Experts, and the width of each, are split over the two axes below.
EXPERT_ROW_AXES = ('data', 'fsdp')
EXPERT_AXIS = 'expert'
EXPERT_WIDTH_AXIS = 'tensor'
# What columns of the vocabulary are split over.
VOCAB_AXIS = 'tensor'
# What columns of the residual stream may be split over: there each device of
# the axis would hold the same.
SEQUENCE_AXIS = 'tensor'

# What heads of attention are split over.
HEAD_AXIS = 'tensor'

# Logical axis -> mesh axis (or axes). Absent means replicated.
AXIS_RULES = (
  ('batch', BATCH_AXES),
  ('layers', None),
  ('embed', 'fsdp'),
  ('heads', HEAD_AXIS),
  ('kv_heads', HEAD_AXIS),
  ('head_dim', None),
  ('mlp', 'tensor'),
  ('expert', EXPERT_AXIS),
  ('router', None),
  ('rank', None),
  ('vocab', VOCAB_AXIS),
  ('norm', None),
)


def axis_sizes(
  data: int, fsdp: int, tensor: int, num_devices: int, expert: int = 1
) -> tuple[int, int, int, int]:
  """Sizes of data, fsdp, tensor and expert, a -1 replaced by what is left.

  Raises:
    ValueError: the sizes do not multiply to the number of devices.

  >>> axis_sizes(-1, 2, 1, num_devices=8)
  (4, 2, 1, 1)
  """
  sizes = [data, fsdp, tensor, expert]
  known = math.prod(size for size in sizes if size != -1)
  if sizes.count(-1) == 1 and known > 0 and num_devices % known == 0:
    sizes[sizes.index(-1)] = num_devices // known
  if math.prod(sizes) != num_devices or min(sizes) < 1:
    raise ValueError(
      f'mesh: data={data}, fsdp={fsdp}, tensor={tensor}, expert={expert} does'
      f' not multiply to the {num_devices} devices present; set one axis to -1'
      ' to let it take what is left.'
    )
  return sizes[0], sizes[1], sizes[2], sizes[3]


def make_mesh(
  data: int,
  fsdp: int,
  tensor: int,
  devices: Devices = None,
  *,
  expert: int = 1,
) -> Mesh:
  """Mesh of the given shape over `devices` (default: all of them).

  Args:
    data: size of the data axis; -1 takes the devices that are left.
    fsdp: size of the axis over which parameters and batch are split.
    tensor: size of the axis over which heads and vocabulary are split.
    devices: the devices; an array of them is taken in its order, else those
      that are neighbors come to lie beside each other.
    expert: size of the axis over which experts, and the batch, are split.

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
  placed = isinstance(devices, np.ndarray)
  found = jax.devices() if devices is None else list(np.ravel(devices))
  data, fsdp, tensor, expert = axis_sizes(
    data, fsdp, tensor, len(found), expert
  )
  sizes = (data, fsdp, expert, tensor)
  grid = np.reshape(devices, sizes) if placed else _arrange(sizes, found)
  return Mesh(grid, MESH_AXES)


def _arrange(sizes: tuple[int, ...], devices: Sequence[Any]) -> Any:
  """Devices in the shape of the mesh, neighbors beside each other."""
  indices = {getattr(device, 'slice_index', 0) for device in devices}
  if len(indices) > 1 and devices[0].platform == 'tpu':
    inner, outer = _over_slices(sizes, len(indices))
    return mesh_utils.create_hybrid_device_mesh(
      inner, outer, devices=devices, allow_split_physical_axes=True
    )
  try:
    return mesh_utils.create_device_mesh(sizes, devices=devices)
  except NotImplementedError:  # An axis of the mesh is a part of one of chips.
    return mesh_utils.create_device_mesh(
      sizes, devices=devices, allow_split_physical_axes=True
    )


def _over_slices(
  sizes: tuple[int, ...], num_slices: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Sizes within a slice and over slices: rows cross the slower network."""
  outer = [1] * len(sizes)
  for i, axis in enumerate(MESH_AXES):
    if axis in BATCH_AXES and sizes[i] % num_slices == 0:
      outer[i] = num_slices
      return tuple(
        size // parts for size, parts in zip(sizes, outer, strict=True)
      ), tuple(outer)
  raise ValueError(
    f'mesh: {num_slices} slices, which divide none of'
    f' {", ".join(BATCH_AXES)}={sizes[:-1]}; make mesh.data a multiple of'
    f' {num_slices}.'
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """A whole copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows split over the data axes."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def head_sharding(mesh: Mesh) -> NamedSharding:
  """A head [V, D] split over the vocabulary only."""
  return NamedSharding(mesh, PartitionSpec(VOCAB_AXIS))


def num_batch_shards(mesh: Mesh) -> int:
  """Into how many parts the rows of a batch are split."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def constrain_rows(
  mesh: Mesh | None, x: jax.Array, *, columns: bool = False
) -> jax.Array:
  """Activations [B, S, ...] with their rows split over the batch axes.

  A compiler left alone may split the width instead, as the parameters are, and
  then adds up activations after every product.

  Args:
    mesh: devices, or None.
    x: as it is where B is no multiple of the shards.
    columns: split S over the tensor axis, too, where that divides it.
  """
  if mesh is None or mesh.size == 1 or x.shape[0] % num_batch_shards(mesh):
    return x
  axes: list[Any] = [BATCH_AXES]
  if columns and x.shape[1] % mesh.shape[SEQUENCE_AXIS] == 0:
    axes.append(SEQUENCE_AXIS)
  sharding = NamedSharding(mesh, PartitionSpec(*axes))
  return jax.lax.with_sharding_constraint(x, sharding)


def constrain_heads(mesh: Mesh | None, x: jax.Array) -> jax.Array:
  """[B, S, heads, ...] with rows over the batch axes, heads over `tensor`.

  Args:
    mesh: devices, or None.
    x: as it is where B is no multiple of the shards.
  """
  if mesh is None or mesh.size == 1 or x.shape[0] % num_batch_shards(mesh):
    return x
  heads = HEAD_AXIS if x.shape[2] % mesh.shape[HEAD_AXIS] == 0 else None
  sharding = NamedSharding(mesh, PartitionSpec(BATCH_AXES, None, heads))
  return jax.lax.with_sharding_constraint(x, sharding)


def tree_shardings(mesh: Mesh, boxed: Any) -> Any:
  """Shardings of a tree whose arrays may carry logical axis names.

  Args:
    mesh: the mesh.
    boxed: abstract tree; `nn.LogicallyPartitioned` leaves name their axes,
      bare leaves are replicated.

  Returns:
    The unboxed tree of NamedSharding.
  """
  specs = nn.get_partition_spec(boxed)
  return nn.logical_to_mesh_sharding(specs, mesh, AXIS_RULES)
