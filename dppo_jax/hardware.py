"""Peak rates of accelerators, from their makers' data sheets.

Peak is dense bf16 FLOP/s, bandwidth that of the device's own memory. Of the
three products of a chunk of C tokens with a head [V, D], one after the other,
the head's gradient moves most: 2 C D V FLOP, and 8 D V bytes, read and written
in f32. So from C = 4 peak / bandwidth on all are compute-bound.
"""

from collections.abc import Mapping
import math
from typing import NamedTuple


class Device(NamedTuple):
  """A device as JAX counts them.

  Attributes:
    peak: FLOP/s, dense bf16.
    bandwidth: bytes/s of its memory.
    memory: bytes.
    source: whose data sheet.
  """

  peak: float
  bandwidth: float
  memory: float
  source: str


# `device_kind` begins with the key; the longest key that fits counts.
DEVICES: Mapping[str, Device] = {
  'TPU v4': Device(275e12, 1.228e12, 32e9, 'Google Cloud, TPU v4'),
  'TPU v5 lite': Device(197e12, 0.819e12, 16e9, 'Google Cloud, TPU v5e'),
  'TPU v5': Device(459e12, 2.765e12, 95e9, 'Google Cloud, TPU v5p'),
  'TPU v6 lite': Device(918e12, 1.640e12, 32e9, 'Google Cloud, TPU v6e'),
  # Two devices a chip.
  'TPU7x': Device(1153e12, 3.69e12, 96e9, 'Google Cloud, TPU7x'),
  'NVIDIA A100': Device(312e12, 2.039e12, 80e9, 'NVIDIA, A100 SXM'),
  'NVIDIA H100': Device(989e12, 3.35e12, 80e9, 'NVIDIA, H100 SXM'),
  'NVIDIA H200': Device(989e12, 4.8e12, 141e9, 'NVIDIA, H200 SXM'),
  'NVIDIA B200': Device(2250e12, 8.0e12, 180e9, 'NVIDIA, HGX B200'),
}
# FLOP of the matrix units in one cycle: TPU compilers estimate in cycles.
FLOP_PER_CYCLE: Mapping[str, int] = {
  'TPU v5 lite': 2**17,
  'TPU v5': 2**18,
}
# What a device sends to others of its slice or its node, bytes/s over all links
# in one direction; data sheets of DEVICES, which often state both directions.
LINKS: Mapping[str, float] = {
  'TPU v4': 0.3e12,
  'TPU v5 lite': 0.2e12,
  'TPU v5': 0.6e12,
  'TPU v6 lite': 0.4e12,
  'TPU7x': 0.3e12,
  'NVIDIA A100': 0.3e12,
  'NVIDIA H100': 0.45e12,
  'NVIDIA H200': 0.45e12,
  'NVIDIA B200': 0.9e12,
}
# Where the device is not in the table, a CPU above all. Measured on 2 cores,
# D = 512, V = 151,936: 256 rows cost 1.13 times the bare products, 512 rows
# 1.03, 1,024 rows 1.05.
OTHER_CHUNK_ROWS = 512
# Rows are padded to whole lanes.
_LANES = 128
# A chunk this small, in logits, is cheaper than the loop around it.
_SMALL_LOGITS = 2**22


def find_device(kind: str) -> Device | None:
  """The row of a `jax.Device.device_kind`, or None.

  >>> find_device('NVIDIA H200 141GB').source
  'NVIDIA, H200 SXM'
  """
  name = _row_of(kind)
  return DEVICES[name] if name else None


def find_link(kind: str) -> float | None:
  """Bytes/s to other devices of a `jax.Device.device_kind`, or None.

  >>> find_link('TPU v5 lite')
  200000000000.0
  """
  name = _row_of(kind)
  return LINKS[name] if name else None


def clock(kind: str) -> float | None:
  """Cycles/s of a `jax.Device.device_kind` at its peak, or None.

  >>> round(clock('TPU v5 lite') / 1e9, 2), round(clock('TPU v5') / 1e9, 2)
  (1.5, 1.75)
  """
  name = _row_of(kind)
  if name not in FLOP_PER_CYCLE:
    return None
  return DEVICES[name].peak / FLOP_PER_CYCLE[name]


def _row_of(kind: str) -> str:
  fitting = [name for name in DEVICES if kind.startswith(name)]
  return max(fitting, key=len) if fitting else ''


def head_chunk_tokens(kind: str, columns: int) -> int:
  """C, tokens a chunk of the head: 4 peak / bandwidth, in whole lanes.

  Twice that on a TPU, whose compiler moves about half of the bytes beside the
  product. By its estimate the gradient of the head takes 1.61 times its FLOP
  floor at C = 1,024 and 1.07 at 2,048 on v5e, 1.71 at 768 and 1.12 at 1,280 on
  v5p.

  Args:
    kind: of `jax.Device.device_kind`.
    columns: of the vocabulary on a device; where they are few the chunk holds
      more rows, since its logits are small all the same.

  >>> head_chunk_tokens('NVIDIA H200', 151_936)
  896
  """
  device = find_device(kind)
  rows = OTHER_CHUNK_ROWS
  if device is not None:
    law = 4 * device.peak / device.bandwidth
    if kind.startswith('TPU'):
      law *= 2
    rows = math.ceil(law / _LANES) * _LANES
  return max(rows, _SMALL_LOGITS // columns // _LANES * _LANES)
