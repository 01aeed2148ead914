"""Bytes per device of each phase of a step, estimated from shapes."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from dppo_jax import hardware, parallel
from dppo_jax.planning import dry_run, memory
from dppo_jax.planning.aot import programs, topologies
from dppo_jax.runtime.config.experiment import Experiment, replace_keys
from dppo_jax.runtime.programs import parts as parts_lib

_BY_PHASE = {
  programs.SAMPLING: (*memory.SAMPLING, 'recorded stats'),
  programs.SCORING: (
    'activations',
    'attention scores',
    'gathered keys',
    'logits',
  ),
  programs.TRAINING: memory.TRAINING,
}
# Name beside the phases' for what is on the device in all of them.
STATE = 'state'
_STATE = (
  'base weights',
  'sampler base',
  'parameters',
  'optimizer state',
  'reference policy',
)


class Estimator:
  """Estimates for a config with changes, on one machine.

  Weights are traced once per model and mesh, so that a search is fast.
  """

  def __init__(
    self,
    config: Any,
    topology: topologies.Topology,
    devices: Sequence[Any] | None,
  ):
    """Takes what stays the same.

    Args:
      config: with the keys of `configs/default.py`; needs neither weights nor
        data.
      topology: the machine.
      devices: described ones or placeholders; None for local devices.
    """
    self._config = config
    self._topology = topology
    self._devices = devices
    self._weights: dict[Any, dict[str, float]] = {}

  def experiment(self, change: Mapping[str, Any]) -> Experiment:
    """The config with a change, checked, with the LM-head chunk of the device.

    Raises:
      ValueError: lists every problem of the config.
    """
    other = self._config.copy_and_resolve_references()
    other.update_from_flattened_dict(dict(change))
    experiment = dry_run.build(other, self._topology.num_devices)
    return for_device(experiment, self._topology.device_kind)

  def shapes(self, experiment: Experiment) -> dict[str, float]:
    """Bytes per device of the largest arrays, by name; see `memory.memory`."""
    mesh = parts_lib.mesh_of(experiment, self._devices)
    key = (
      dataclasses.replace(experiment.model, remat='none'),
      experiment.mesh,
      experiment.sampling.gather_fsdp,
    )
    if key not in self._weights:
      self._weights[key] = weights_of(experiment, self._devices)
    return {**self._weights[key], **memory.activations(experiment, mesh)}

  def __call__(self, change: Mapping[str, Any]) -> dict[str, float] | None:
    """Bytes per device by phase, and of STATE; None if it is not legal."""
    mesh = {
      axis: change.get(f'mesh.{axis}', size)
      for axis, size in self._config.mesh.items()
    }
    try:
      parallel.axis_sizes(**mesh, num_devices=self._topology.num_devices)
      experiment = self.experiment(change)
    except ValueError:
      return None
    shapes = self.shapes(experiment)
    sizes = {name: phase_bytes(shapes, name) for name in programs.PHASES}
    return {**sizes, STATE: state_bytes(shapes)}

  def is_legal_alone(self) -> bool:
    """Whether the config has no problem on a single device."""
    mesh = {f'mesh.{axis}': 1 for axis in self._config.mesh}
    other = self._config.copy_and_resolve_references()
    other.update_from_flattened_dict(mesh)
    try:
      dry_run.build(other, 1)
    except ValueError:
      return False
    return True


def weights_of(
  experiment: Experiment, devices: parallel.Devices
) -> dict[str, float]:
  """Bytes of `memory.weights` over these devices; traces the model."""
  parts = parts_lib.assemble_model(experiment, devices)
  return memory.weights(experiment, parts)


def for_device(experiment: Experiment, kind: str) -> Experiment:
  """The experiment with the LM-head chunk of a device kind."""
  if experiment.learner.head_chunk_tokens or hardware.find_device(kind) is None:
    return experiment
  columns = experiment.model.vocab_size // max(1, experiment.mesh.tensor)
  rows = hardware.head_chunk_tokens(kind, columns)
  return replace_keys(experiment, {'learner.head_chunk_tokens': rows})


def state_bytes(shapes: Mapping[str, float]) -> float:
  """Bytes of the weights and moments that every phase keeps."""
  return sum(shapes.get(key, 0.0) for key in _STATE)


def phase_bytes(shapes: Mapping[str, float], name: str) -> float:
  """Bytes of a phase.

  Args:
    shapes: from `memory.memory`.
    name: of programs.PHASES.
  """
  own = sum(shapes.get(key, 0.0) for key in _BY_PHASE[name])
  return state_bytes(shapes) + own
