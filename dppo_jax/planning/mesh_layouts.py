"""Meshes of one machine's devices on which a config is compared."""

from collections.abc import Iterator, Sequence
import dataclasses
import math
from typing import Any

import jax
import numpy as np

from dppo_jax import hardware
from dppo_jax.planning import dry_run, memory
from dppo_jax.planning.aot import roofline
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.programs import parts as parts_lib

AS_GIVEN, REVERSED, SHUFFLED = 'as given', 'reversed', 'shuffled'
NUM_DEVICES = 8
# FLOP per layout on CPUs: about an hour on a few cores.
_MOST_WORK = 1e14


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
  """A mesh and the order of its devices.

  Attributes:
    data: axis size, as in section `mesh`.
    fsdp: axis size.
    tensor: axis size.
    expert: axis size.
    order: of the devices: as given, reversed or shuffled.
  """

  data: int = 1
  fsdp: int = 1
  tensor: int = 1
  expert: int = 1
  order: str = AS_GIVEN

  @property
  def num_devices(self) -> int:
    """Number of devices."""
    return self.data * self.fsdp * self.tensor * self.expert

  def __str__(self) -> str:
    sizes = [
      f'{axis} {size}'
      for axis, size in dataclasses.asdict(self).items()
      if axis != 'order' and size > 1
    ]
    return ' · '.join(sizes or ['1 device'])


# The others are compared with the first.
LAYOUTS = (
  Layout(),
  Layout(data=2),
  Layout(tensor=2),
  Layout(expert=2),
  Layout(fsdp=2, tensor=2),
  Layout(fsdp=2, expert=2),
  Layout(data=2, fsdp=2, tensor=2),
  Layout(data=2, fsdp=2, tensor=2, order=REVERSED),
  Layout(data=2, fsdp=2, tensor=2, order=SHUFFLED),
  Layout(expert=4, tensor=2),
)


def have_devices() -> int:
  """Number of local devices; eight simulated ones on a CPU."""
  if jax.default_backend() == 'cpu' and jax.device_count() < NUM_DEVICES:
    return dry_run.have_devices({}, NUM_DEVICES)
  return jax.device_count()


def arrange(layout: Layout) -> np.ndarray:
  """Devices [data, fsdp, expert, tensor] of a layout, in its order."""
  devices = jax.devices()[: layout.num_devices]
  if layout.order == REVERSED:
    devices = devices[::-1]
  elif layout.order == SHUFFLED:
    places = np.random.default_rng(0).permutation(len(devices))
    devices = [devices[place] for place in places]
  grid = np.empty(len(devices), object)
  grid[:] = devices
  return grid.reshape(layout.data, layout.fsdp, layout.expert, layout.tensor)


def build(config: Any, layout: Layout, num_prompts: int) -> Experiment:
  """Experiment of a config with `num_prompts`, on a layout.

  Args:
    config: with the keys of `configs/default.py`; needs neither weights nor
      data.
    layout: of the mesh.
    num_prompts: per step, in at most two minibatches of two microbatches.

  Raises:
    ValueError: lists every problem of the config, or why it does not fit.
  """
  learner = config.learner
  num_rows = num_prompts * config.data.group_size
  other = config.copy_and_resolve_references()
  mesh = dataclasses.asdict(layout)
  del mesh['order']
  other.mesh.update(mesh)
  other.update_from_flattened_dict(
    {
      'data.num_prompts': num_prompts,
      'learner.num_minibatches': min(learner.num_minibatches, 2),
      'learner.num_microbatches': min(learner.num_microbatches, 2),
      'sampling.num_slots': min(config.sampling.num_slots, num_rows),
      # Not run here.
      'sft.batch_size': num_prompts,
      'evaluation.num_prompts': num_prompts,
    }
  )
  return dry_run.build(other, layout.num_devices)


def choose(
  config: Any, num_prompts: int, layouts: Sequence[Layout] = LAYOUTS
) -> Iterator[tuple[Layout, Experiment | None, str]]:
  """Layouts on which a config can be compared.

  Args:
    config: see `build`.
    num_prompts: see `build`.
    layouts: to choose from.

  Yields:
    A layout; its experiment, or None; and why it is skipped, '' if it is not.
  """
  here = jax.device_count()
  for layout in layouts:
    if layout.num_devices > here:
      yield layout, None, f'only {here} devices'
      continue
    try:
      experiment = build(config, layout, num_prompts)
    except ValueError as error:
      if layout == layouts[0]:
        raise
      *_, reason = str(error).splitlines()
      yield layout, None, reason.strip()
      continue
    reason = _too_big(experiment, layout)
    yield layout, None if reason else experiment, reason


def _too_big(experiment: Experiment, layout: Layout) -> str:
  """Reason why this machine is too small, or ''."""
  device = jax.devices()[0]
  parts = parts_lib.assemble_model(experiment, arrange(layout))
  needed = memory.peak(memory.memory(experiment, parts))
  capacity = memory.capacity(device) or math.inf
  if device.platform == 'cpu':  # Its devices share one memory.
    needed *= layout.num_devices
    capacity *= jax.local_device_count()
  if needed > capacity:
    return (
      f'too big: {memory.show_bytes(needed)} estimated of'
      f' {memory.show_bytes(capacity)}'
    )
  if hardware.find_device(device.device_kind) is not None:
    return ''
  done = roofline.work(experiment, layout.tensor, layout.num_devices)
  total = sum(work.flops for work in done.values())
  if total > _MOST_WORK:
    return f'too long: {total:.1g} FLOP per step on a CPU'
  return ''
