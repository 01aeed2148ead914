"""Config changes with which a run fits, by their estimated memory."""

from collections.abc import Callable, Iterator
from typing import Any

from dppo_jax.planning.aot.programs import SAMPLING
from dppo_jax.runtime.config.problems import find_problems

# Estimated bytes of a config, by phase.
EstimateFn = Callable[[dict[str, Any]], float]
Change = dict[str, Any]


def find_change(
  config: dict[str, Any],
  num_devices: int,
  phase: str,
  capacity: float,
  estimate: EstimateFn,
) -> tuple[Change, float] | None:
  """First candidate change with which a phase fits, and its bytes per device.

  Changes that do not affect the results come first.

  Args:
    config: plain nested dicts with the keys of configs/default.py, valid.
    num_devices: of the mesh.
    phase: key of PHASES that does not fit.
    capacity: bytes of a device.
    estimate: bytes of a config in that phase.
  """
  for change in _candidates(config, phase):
    changed = apply(config, change)
    if find_problems(changed, num_devices):
      continue
    size = estimate(changed)
    if size <= capacity:
      return change, size
  return None


def apply(config: dict[str, Any], change: Change) -> dict[str, Any]:
  """Copy of the config with some keys replaced, by path."""
  changed = {
    name: dict(value) if isinstance(value, dict) else value
    for name, value in config.items()
  }
  for path, value in change.items():
    section, key = path.split('.')
    changed[section][key] = value
  return changed


def show(change: Change) -> str:
  """Flags of a change: '--config.learner.num_microbatches=8'."""
  return ' '.join(f'--config.{path}={value}' for path, value in change.items())


def _candidates(config: dict[str, Any], phase: str) -> Iterator[Change]:
  """Candidate changes: those that only cost time first."""
  learner, data, mesh = config['learner'], config['data'], config['mesh']
  sampled = phase == SAMPLING
  parts = learner['num_microbatches']
  spread = {'mesh.data': 1, 'mesh.fsdp': -1}
  tensors = [mesh['tensor'] * 2**i for i in range(1, 5)]
  remat: Change = {} if config['model']['remat'] == 'full' else {
    'model.remat': 'full'
  }  # fmt: skip
  if not sampled:
    if remat:
      yield remat
    for i in range(1, 8):
      more = {'learner.num_microbatches': parts * 2**i}
      yield more
      yield {**remat, **more}
  if sampled:
    rows = data['num_prompts'] * data['group_size']
    rows = config['sampling']['num_slots'] or rows
    for i in range(1, min(7, rows.bit_length())):
      yield {'sampling.num_slots': rows // 2**i}
  if mesh['data'] != 1:
    yield spread
  for tensor in tensors:
    split = {**spread, 'mesh.tensor': tensor}
    yield split
    if not sampled:
      yield {**remat, **split}
      for i in range(1, 8):
        yield {**split, 'learner.num_microbatches': parts * 2**i}
  if sampled:
    for i in range(1, 5):
      fewer = data['num_prompts'] // 2**i
      yield {'data.num_prompts': fewer}
  for i in range(1, 5):
    limit = config['sampling']['max_completion_length'] // 2**i
    yield {'sampling.max_completion_length': limit}
