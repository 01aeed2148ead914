"""Hardware topologies to plan for: 'v5e:16x16', 'gpu:8xh100', 'local'."""

from collections.abc import Mapping, Sequence
import dataclasses
import importlib.util
import math
import re
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from dppo_jax.planning.aot import gpu_targets
from dppo_jax.suggestions import suggest

LOCAL = 'local'


class TpuKind(NamedTuple):
  """A generation of TPUs.

  Attributes:
    device_kind: as named by JAX.
    devices_per_chip: JAX devices per chip.
    shapes: available shapes, in chips, from small to large.
  """

  device_kind: str
  devices_per_chip: int
  shapes: tuple[str, ...]


_FLAT = ('2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_SOLID = ('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8')
_SOLID = (*_SOLID, '8x8x8', '8x8x16', '8x16x16', '16x16x16')
TPUS: Mapping[str, TpuKind] = {
  'v5e': TpuKind('TPU v5 lite', 1, _FLAT),
  'v5p': TpuKind('TPU v5', 1, (*_SOLID, '16x16x24')),
  'v6e': TpuKind('TPU v6 lite', 1, _FLAT),
  'tpu7x': TpuKind('TPU7x', 2, _SOLID),
}
# Accelerator types of Google Cloud, TYPE-COUNT: kind, and counted units a chip
# (chips of v5e and v6e, TensorCores of v5p).
_CLOUD_TYPES: Mapping[str, tuple[str, int]] = {
  'v5litepod': ('v5e', 1),
  'v5e': ('v5e', 1),
  'v5p': ('v5p', 2),
  'v6e': ('v6e', 1),
}
GPUS: Mapping[str, str] = {
  'a100': 'NVIDIA A100',
  'h100': 'NVIDIA H100',
  'h200': 'NVIDIA H200',
  'b200': 'NVIDIA B200',
}


# What compiles for a platform, and the extra that brings it.
_COMPILERS: Mapping[str, tuple[str, str]] = {
  'tpu': ('libtpu', 'tpu'),
  'gpu': ("JAX's CUDA plugin", 'gpu_plan'),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
  """A machine to plan for.

  Attributes:
    name: argument of `parse`.
    platform: tpu, gpu, or local for local devices.
    device_kind: as named by JAX.
    num_devices: JAX devices, over all slices.
    num_slices: TPU slices, connected by the data center's network.
  """

  name: str
  platform: str
  device_kind: str
  num_devices: int
  num_slices: int


@dataclasses.dataclass(frozen=True)
class Placeholder:
  """Stands for a device in a mesh; for shapes and shardings only.

  Attributes:
    id: number of the device.
    device_kind: as named by JAX.
    platform: 'placeholder', so that the mesh is laid out row by row.
    process_index: 0.
  """

  id: int
  device_kind: str
  platform: str = 'placeholder'
  process_index: int = 0


def parse(name: str, num_slices: int = 1) -> Topology:
  """Topology of a name.

  Args:
    name: KIND:SHAPE of a TPU slice, gpu:NUMBERxKIND, or local.
    num_slices: of that shape.

  Raises:
    ValueError: unknown machine; the message lists the known ones.

  >>> parse('v5e:16x16', num_slices=2).num_devices
  512
  >>> parse('gpu:8xh100').device_kind
  'NVIDIA H100'
  """
  if num_slices < 1:
    raise ValueError(f'--slices: got {num_slices}; at least 1.')
  kind, _, shape = name.partition(':')
  if kind in TPUS:
    return _tpu(name, kind, shape, num_slices)
  if num_slices > 1:
    raise ValueError(f'--slices: got {num_slices}; only TPUs have slices.')
  if kind == 'gpu':
    return _gpu(name, shape)
  if name == LOCAL:
    return Topology(
      name=name,
      platform=LOCAL,
      device_kind=jax.devices()[0].device_kind,
      num_devices=jax.device_count(),
      num_slices=1,
    )
  same = _of_cloud_type(name)
  if same:
    raise ValueError(
      f'--topology: unknown {name!r}; did you mean {same!r}, of as many chips?'
      f' Known: {", ".join(known())}.'
    )
  raise ValueError(f'--topology: unknown {name!r}{suggest(name, known())}')


def _of_cloud_type(name: str) -> str:
  """The topology of an accelerator type; '' where there is none.

  >>> _of_cloud_type('v5litepod-16'), _of_cloud_type('v5p-8')
  ('v5e:4x4', 'v5p:2x2x1')
  """
  kind, _, count = name.partition('-')
  if kind not in _CLOUD_TYPES or not re.fullmatch(r'[0-9]{1,5}', count):
    return ''
  kind, per_chip = _CLOUD_TYPES[kind]
  for shape in TPUS[kind].shapes:
    if _num_chips(shape) * per_chip == int(count):
      return f'{kind}:{shape}'
  return ''


def known() -> list[str]:
  """Known names; GPUs also in other numbers."""
  names = [f'{kind}:{s}' for kind, row in TPUS.items() for s in row.shapes]
  return [*names, *(f'gpu:8x{kind}' for kind in GPUS), LOCAL]


def _tpu(name: str, kind: str, shape: str, num_slices: int) -> Topology:
  row = TPUS[kind]
  if shape not in row.shapes:
    offered = ', '.join(f'{kind}:{shape}' for shape in row.shapes)
    raise ValueError(f'--topology: unknown {name!r}. Known: {offered}.')
  return Topology(
    name=name,
    platform='tpu',
    device_kind=row.device_kind,
    num_devices=_num_chips(shape) * row.devices_per_chip * num_slices,
    num_slices=num_slices,
  )


def _num_chips(shape: str) -> int:
  return math.prod(int(size) for size in shape.split('x'))


def _gpu(name: str, shape: str) -> Topology:
  found = re.fullmatch(r'([1-9]\d*)x(\w+)', shape)
  if found is None or found[2] not in GPUS:
    raise ValueError(
      f'--topology: unknown {name!r}; gpu:NUMBERxKIND, such as gpu:8xh100, with'
      f' the kinds {", ".join(GPUS)}.'
    )
  return Topology(
    name=name,
    platform='gpu',
    device_kind=GPUS[found[2]],
    num_devices=int(found[1]),
    num_slices=1,
  )


def placeholders(topology: Topology) -> list[Placeholder]:
  """Devices of a topology for shapes and shardings; nothing compiles for them.

  Unlike simulated devices, they leave those of this process as they are.
  """
  return [
    Placeholder(i, topology.device_kind) for i in range(topology.num_devices)
  ]


def can_compile(platform: str = 'tpu') -> bool:
  """Whether a platform's compiler is installed: libtpu, or the CUDA plugin."""
  if platform == 'gpu':
    return gpu_targets.can_compile()
  return platform == 'tpu' and importlib.util.find_spec('libtpu') is not None


def describe(topology: Topology) -> Sequence[Any]:
  """Abstract devices of a TPU or GPU topology, for compilation only.

  Raises:
    ValueError: the compiler is not installed, or does not know the topology.
  """
  if not can_compile(topology.platform):
    needed, extra = _COMPILERS[topology.platform]
    raise ValueError(
      f"--topology: compiling for it needs {needed}; pip install 'dppo_jax"
      f"[{extra}]' installs it, no device needed. --nocompile estimates from"
      ' shapes only.'
    )
  if topology.platform == 'gpu':
    platform = 'cuda'
    options = gpu_targets.options(topology.device_kind, topology.num_devices)
  else:
    platform, options = 'tpu', {}
    if topology.num_slices > 1:
      options['num_slices'] = topology.num_slices
  try:
    described = topologies.get_topology_desc(
      topology.name, platform=platform, **options
    )
  except (RuntimeError, ValueError) as error:
    reason = str(error).splitlines()[0]
    raise ValueError(
      f'--topology: the compiler rejects {topology.name!r} ({reason}); known:'
      f' {", ".join(known())}.'
    ) from error
  return described.devices
