"""Plan of a run on a machine: memory, time, whether it fits, and a remedy."""

from collections.abc import Callable, Sequence
import dataclasses
import math
from typing import Any

import jax

from dppo_jax import hardware
from dppo_jax.planning import dry_run, memory
from dppo_jax.planning.aot import programs, remedies, roofline, topologies
from dppo_jax.runtime.config.experiment import Experiment, replace_keys
from dppo_jax.runtime.programs import parts as parts_lib

_STATE = ('base weights', 'parameters', 'optimizer state')
_BY_PHASE = {
  programs.SAMPLING: ('sampling cache', 'recorded stats', 'logits'),
  programs.SCORING: ('activations', 'attention scores', 'logits'),
  programs.TRAINING: ('gradients', 'activations', 'attention scores', 'logits'),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhasePlan:
  """A phase of a step.

  Attributes:
    name: of programs.PHASES.
    runs: executions per step; 0 if this config does not need it.
    num_bytes: per device, at most.
    fits: whether a device has so many.
    compiled: analysis of the compiled program; None if estimated from shapes.
    work: by formula.
    estimate: lower bound of its time; None for an unknown device.
    change: flags with which it would fit, '' if it fits or none is known.
    change_bytes: estimated bytes per device with that change.
  """

  name: str
  runs: int
  num_bytes: float
  fits: bool
  compiled: programs.Phase | None
  work: roofline.Work
  estimate: roofline.StepEstimate | None
  change: str
  change_bytes: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """A step on a machine.

  Attributes:
    topology: the machine.
    mesh: sizes by axis.
    capacity: bytes of a device.
    shapes: bytes per device of the largest arrays, estimated from shapes.
    phases: of a step.
    fits: whether all phases that run fit.
    step_s: lower bound of a step's time; None if a phase has no estimate.
    tokens_per_step: sampled tokens, completions at full length.
  """

  topology: topologies.Topology
  mesh: dict[str, int]
  capacity: float
  shapes: dict[str, float]
  phases: tuple[PhasePlan, ...]
  fits: bool
  step_s: float | None
  tokens_per_step: int


def make_plan(
  config: Any,
  topology: topologies.Topology,
  names: Sequence[str],
  *,
  compiling: bool,
  log: Callable[[str], None],
) -> Plan:
  """Plan of a step of a config on a machine.

  Args:
    config: with the keys of `configs/default.py`; needs neither weights nor
      data.
    topology: from `topologies.parse`.
    names: keys of programs.PHASES.
    compiling: whether to compile for it, or estimate from shapes only.
    log: receives a line before each compilation.

  Raises:
    ValueError: the config has problems, or nothing compiles for the machine.
  """
  number = topology.num_devices
  devices = None
  if topology.platform == 'tpu' and topologies.can_compile():
    devices = topologies.describe(topology)
  elif compiling:
    devices = topologies.describe(topology)  # Raises, with the fix.
  if devices is None and topology.platform != topologies.LOCAL:
    dry_run.have_devices(config.mesh.to_dict(), number)
  experiment = _for_device(dry_run.build(config, number), topology.device_kind)
  parts = parts_lib.assemble_model(experiment, devices)
  shapes = memory.memory(experiment, parts)
  capacity = _capacity(topology)
  compiled: dict[str, programs.Phase] = {}
  if compiling and devices is not None:
    for phase in programs.compile_phases(experiment, devices, names, log):
      compiled[phase.name] = phase
  done = roofline.work(experiment, parts.mesh.shape['tensor'], number)
  runs = _runs(experiment)

  def plan_phase(name: str) -> PhasePlan:
    found = compiled.get(name)
    size = found.memory.total if found else _by_shape(shapes, name)
    sent = sum(one.num_bytes for one in found.collectives) if found else 0.0
    fits = size <= capacity and not (found and found.refused)
    change, change_size = '', 0.0
    if not fits:
      change, change_size = _change(
        config, topology, devices, name, capacity, size, shapes
      )
    return PhasePlan(
      name=name,
      runs=runs[name],
      num_bytes=size,
      fits=fits,
      compiled=found,
      work=done[name],
      estimate=roofline.estimate(
        done[name], topology.device_kind, number, sent
      ),
      change=change,
      change_bytes=change_size,
    )

  planned = tuple(plan_phase(name) for name in programs.PHASES if name in names)
  return Plan(
    topology=topology,
    mesh=dict(parts.mesh.shape),
    capacity=capacity,
    shapes=shapes,
    phases=planned,
    fits=all(phase.fits for phase in planned if phase.runs),
    step_s=_step_seconds(planned),
    tokens_per_step=experiment.data.num_prompts
    * experiment.data.group_size
    * experiment.sampling.max_completion_length,
  )


def _runs(experiment: Experiment) -> dict[str, int]:
  scored = experiment.loss.anchor == 'recomputed'
  scored += bool(experiment.loss.kl_coefficient)
  return {programs.SAMPLING: 1, programs.SCORING: scored, programs.TRAINING: 1}


def _capacity(topology: topologies.Topology) -> float:
  if topology.platform == topologies.LOCAL:
    return memory.capacity(jax.devices()[0]) or math.inf
  device = hardware.find_device(topology.device_kind)
  if device is None:
    raise ValueError(
      f'--topology: hardware.py has no entry for {topology.device_kind!r}.'
    )
  return device.memory


def _for_device(experiment: Experiment, kind: str) -> Experiment:
  """Experiment with the LM-head chunk of the device."""
  if experiment.learner.head_chunk_tokens or hardware.find_device(kind) is None:
    return experiment
  columns = experiment.model.vocab_size // max(1, experiment.mesh.tensor)
  rows = hardware.head_chunk_tokens(kind, columns)
  return replace_keys(experiment, {'learner.head_chunk_tokens': rows})


def _by_shape(shapes: dict[str, float], name: str) -> float:
  own = [*_STATE, *_BY_PHASE[name]]
  return sum(size for key, size in shapes.items() if key in own)


def _change(
  config: Any,
  topology: topologies.Topology,
  devices: Sequence[Any] | None,
  name: str,
  capacity: float,
  size: float,
  shapes: dict[str, float],
) -> tuple[str, float]:
  """Flags with which a phase fits, and its bytes, scaled by the shapes."""
  state = sum(shapes.get(key, 0.0) for key in _STATE)
  ratio = max(size - state, 0.0) / (_by_shape(shapes, name) - state)

  def estimate(changed: dict[str, Any]) -> float:
    other = config.copy_and_resolve_references()
    other.update(changed)
    experiment = dry_run.build(other, topology.num_devices)
    experiment = _for_device(experiment, topology.device_kind)
    parts = parts_lib.assemble_model(experiment, devices)
    found = memory.memory(experiment, parts)
    kept = sum(found.get(key, 0.0) for key in _STATE)
    return kept + ratio * (_by_shape(found, name) - kept)

  change = remedies.find_change(
    config.to_dict(), topology.num_devices, name, capacity, estimate
  )
  return (remedies.show(change[0]), change[1]) if change else ('', 0.0)


def _step_seconds(planned: Sequence[PhasePlan]) -> float | None:
  total = 0.0
  for phase in planned:
    if phase.runs and phase.estimate is None:
      return None
    if phase.estimate is not None:
      total += phase.runs * phase.estimate.seconds
  return total if len(planned) == len(programs.PHASES) else None
