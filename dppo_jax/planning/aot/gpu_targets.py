"""Descriptions of GPUs for the CUDA compiler, which then needs no GPU.

The compiler takes the limits of a device as text, in the fields of XLA's
`GpuTargetConfigProto`. Most are those of every GPU since compute capability 8;
the rest is from NVIDIA's data sheets and CUDA's table of technical
specifications. Times are not among them: kernels are chosen by default rules
where nothing can be tried.
"""

from collections.abc import Iterator, Mapping
import importlib.util
from typing import Any, NamedTuple

from dppo_jax import hardware

# GPUs of a host.
_PER_HOST = 8


class Chip(NamedTuple):
  """What differs between kinds of GPUs.

  Attributes:
    capability: compute capability, major and minor.
    cores: streaming multiprocessors.
    lanes: f32 units of each.
    shared: bytes of shared memory of each.
    cache: bytes of L2.
    clock: GHz, boost.
  """

  capability: tuple[int, int]
  cores: int
  lanes: int
  shared: int
  cache: int
  clock: float


CHIPS: Mapping[str, Chip] = {
  'NVIDIA A100': Chip((8, 0), 108, 64, 164 * 2**10, 40 * 2**20, 1.41),
  'NVIDIA H100': Chip((9, 0), 132, 128, 228 * 2**10, 50 * 2**20, 1.98),
  'NVIDIA H200': Chip((9, 0), 132, 128, 228 * 2**10, 50 * 2**20, 1.98),
  'NVIDIA B200': Chip((10, 0), 148, 128, 228 * 2**10, 126 * 2**20, 1.97),
}
# The system takes so much of the shared memory of a block.
_RESERVED = 2**10
_EVERY_CHIP = dict(
  threads_per_warp=32,
  threads_per_block_limit=1024,
  threads_per_core_limit=2048,
  thread_dim_limit_x=1024,
  thread_dim_limit_y=1024,
  thread_dim_limit_z=64,
  block_dim_limit_x=2**31 - 1,
  block_dim_limit_y=2**16 - 1,
  block_dim_limit_z=2**16 - 1,
  registers_per_block_limit=2**16,
  registers_per_core_limit=2**16,
  shared_memory_per_block=48 * 2**10,
  device_address_bits=64,
  device_vendor='NVIDIA Corporation',
)
_PLUGINS = ('jax_plugins.xla_cuda13', 'jax_plugins.xla_cuda12')


def can_compile() -> bool:
  """Whether JAX's CUDA plugin is installed; its libraries are not needed."""
  return any(map(_is_installed, _PLUGINS))


def _is_installed(module: str) -> bool:
  try:
    return importlib.util.find_spec(module) is not None
  except ModuleNotFoundError:  # Not even the package around it.
    return False


def options(device_kind: str, number: int) -> dict[str, Any]:
  """Arguments of `get_topology_desc` for GPUs in hosts of eight.

  Args:
    device_kind: a key of CHIPS.
    number: of GPUs; more than eight must fill their hosts.

  Raises:
    ValueError: they do not.
  """
  hosts, left = divmod(number, _PER_HOST)
  if hosts > 1 and left:
    raise ValueError(
      f'--topology: got {number} GPUs; more than {_PER_HOST} fill hosts of'
      f' {_PER_HOST}. --nocompile estimates any number from shapes.'
    )
  shape = (1, 1, number) if number < _PER_HOST else (1, hosts, _PER_HOST)
  return dict(
    target_config='\n'.join(_target(device_kind)),
    topology='x'.join(map(str, shape)),
  )


def _target(device_kind: str) -> Iterator[str]:
  chip, device = CHIPS[device_kind], hardware.DEVICES[device_kind]
  major, minor = chip.capability
  fields = dict(
    **_EVERY_CHIP,
    name=device_kind,
    core_count=chip.cores,
    fpus_per_core=chip.lanes,
    shared_memory_per_core=chip.shared,
    shared_memory_per_block_optin=chip.shared - _RESERVED,
    l2_cache_size=chip.cache,
    clock_rate_ghz=chip.clock,
    memory_bandwidth=int(device.bandwidth),
    device_memory_size=int(device.memory),
  )
  yield 'gpu_device_info {'
  yield f'cuda_compute_capability {{ major: {major} minor: {minor} }}'
  for name, value in fields.items():
    yield f'{name}: "{value}"' if isinstance(value, str) else f'{name}: {value}'
  yield '}'
  yield 'platform_name: "CUDA"'
  yield 'dnn_version_info { major: 9 minor: 8 }'
  yield f'device_description_str: "{device_kind}"'
