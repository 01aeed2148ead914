"""Plan of a run on a machine: memory, time, whether it fits, and a remedy."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
from typing import Any

import jax

from dppo_jax import hardware
from dppo_jax.planning import memory, missing_files
from dppo_jax.planning.aot import (
  costs,
  estimates,
  programs,
  remedies,
  roofline,
  topologies,
)
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.programs import parts as parts_lib

# Share of the memory that an estimate may take: temporaries come on top.
_ESTIMATED = 0.9


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
    compiled_s: its time by the compiler's cycles, with attention kernels at
      `roofline.KERNEL_SHARE` of the peak; None without kernels or cycles.
    change_bytes: estimated bytes per device with the plan's change; 0 if there
      is none.
  """

  name: str
  runs: int
  num_bytes: float
  fits: bool
  compiled: programs.Phase | None
  work: roofline.Work
  estimate: roofline.StepEstimate | None
  compiled_s: float | None
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
    change: flags with which they would, '' if they do or none is known.
    least_devices: how many such devices hold the weights, gradients and
      moments, split over all of them.
    step_s: lower bound of a step's time; None if a phase has no estimate.
    tokens_per_step: sampled tokens, completions at full length.
    missing: sentences on files that a run needs and this machine lacks.
  """

  topology: topologies.Topology
  mesh: dict[str, int]
  capacity: float
  shapes: dict[str, float]
  phases: tuple[PhasePlan, ...]
  fits: bool
  change: str
  least_devices: int
  step_s: float | None
  tokens_per_step: int
  missing: tuple[str, ...]


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
  devices = _devices(topology, compiling=compiling)
  estimator = estimates.Estimator(config, topology, devices)
  capacity = _capacity(topology)
  limits = dict.fromkeys(names, _ESTIMATED * capacity)
  experiment = _legal(estimator, config, limits)
  shapes = estimator.shapes(experiment)
  compiled: dict[str, programs.Phase] = {}
  if compiling and devices is not None:
    for phase in programs.compile_phases(experiment, devices, names, log):
      compiled[phase.name] = phase
  phases = _phases(experiment, topology, names, compiled, shapes, capacity)
  fits = all(phase.fits for phase in phases if phase.runs)
  remedy = None if fits else _remedy(config, estimator, phases, capacity)
  if remedy is not None:
    phases = [
      dataclasses.replace(
        phase, change_bytes=remedy.num_bytes.get(phase.name, 0.0)
      )
      for phase in phases
    ]
  mesh = dict(parts_lib.mesh_of(experiment, devices).shape)
  return Plan(
    topology=topology,
    mesh=mesh,
    capacity=capacity,
    shapes=shapes,
    phases=tuple(phases),
    fits=fits,
    change='' if remedy is None else remedies.show(remedy.change),
    least_devices=_least_devices(shapes, mesh, capacity),
    step_s=_step_seconds(phases),
    tokens_per_step=experiment.data.num_prompts
    * experiment.data.group_size
    * experiment.sampling.max_completion_length,
    missing=tuple(missing_files.find_missing(config.to_dict())),
  )


def _devices(
  topology: topologies.Topology, *, compiling: bool
) -> Sequence[Any] | None:
  """Devices to compile for, or placeholders; None for local devices."""
  if topology.platform == topologies.LOCAL:
    return None
  # A TPU's devices also say how they are connected, which lays out the mesh.
  described = topology.platform == 'tpu' and topologies.can_compile()
  if described or compiling:
    return topologies.describe(topology)  # Raises, with the fix.
  return topologies.placeholders(topology)


def _legal(
  estimator: estimates.Estimator, config: Any, limits: Mapping[str, float]
) -> Experiment:
  """The experiment on this machine.

  Raises:
    ValueError: it has problems; with a change, if it is the machine's shape.
  """
  try:
    return estimator.experiment({})
  except ValueError as error:
    if not estimator.is_legal_alone():
      raise
    remedy = remedies.find_remedy(config.to_dict(), limits, estimator)
    if remedy is None:
      raise
    raise ValueError(
      f'{error}\nWith {remedies.show(remedy.change)} it runs on this machine'
      ' and fits, as estimated from shapes.'
    ) from error


def _phases(
  experiment: Experiment,
  topology: topologies.Topology,
  names: Sequence[str],
  compiled: Mapping[str, programs.Phase],
  shapes: Mapping[str, float],
  capacity: float,
) -> list[PhasePlan]:
  number = topology.num_devices
  done = roofline.work(experiment, max(1, experiment.mesh.tensor), number)
  runs = _runs(experiment)
  planned = []
  for name in programs.PHASES:
    if name not in names:
      continue
    found = compiled.get(name)
    size = found.memory.total if found else estimates.phase_bytes(shapes, name)
    sent = sum(one.num_bytes for one in found.collectives) if found else 0.0
    planned.append(
      PhasePlan(
        name=name,
        runs=runs[name],
        num_bytes=size,
        fits=size <= capacity and not (found and found.refused),
        compiled=found,
        work=done[name],
        estimate=roofline.estimate(
          done[name], topology.device_kind, number, sent
        ),
        compiled_s=_compiled_seconds(done[name], found, topology),
        change_bytes=0.0,
      )
    )
  return planned


def _compiled_seconds(
  done: roofline.Work,
  found: programs.Phase | None,
  topology: topologies.Topology,
) -> float | None:
  listed = found.costs if found else []
  if not done.attention or costs.KERNEL not in {one.kind for one in listed}:
    return None
  return roofline.compiled_seconds(
    done, costs.cycles(listed), topology.device_kind, topology.num_devices
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


def _remedy(
  config: Any,
  estimator: estimates.Estimator,
  phases: Sequence[PhasePlan],
  capacity: float,
) -> remedies.Remedy | None:
  """A change with which all phases that run fit.

  Estimates are scaled so that without a change they are what was compiled.
  """
  experiment = estimator.experiment({})
  shapes = estimator.shapes(experiment)
  parts = experiment.learner.num_microbatches
  state = estimates.state_bytes(shapes)
  running = [phase for phase in phases if phase.runs]
  ratios = {
    phase.name: max(phase.num_bytes - state, 0.0)
    / (estimates.phase_bytes(shapes, phase.name) - state)
    for phase in running
  }
  limits = {
    phase.name: max(phase.num_bytes, _ESTIMATED * capacity)
    if phase.fits
    # Some are refused though they seem small enough.
    else _ESTIMATED * min(capacity, phase.num_bytes)
    for phase in running
  }

  def estimate(change: remedies.Change) -> dict[str, float] | None:
    found = estimator(change)
    if found is None:
      return None
    kept = found[estimates.STATE]
    return {
      name: kept + ratio * (found[name] - kept)
      for name, ratio in ratios.items()
    }

  settings = config.to_dict()
  settings['learner']['num_microbatches'] = parts
  return remedies.find_remedy(settings, limits, estimate)


def _least_devices(
  shapes: Mapping[str, float], mesh: Mapping[str, int], capacity: float
) -> int:
  whole = estimates.state_bytes({**shapes, 'sampler base': 0.0})
  whole += shapes['gradients']
  split = math.prod(mesh.values()) / mesh['data']
  return math.ceil(whole * split / capacity)


def _step_seconds(planned: Sequence[PhasePlan]) -> float | None:
  total = 0.0
  for phase in planned:
    if phase.runs and phase.estimate is None:
      return None
    if phase.estimate is not None:
      total += phase.runs * phase.estimate.seconds
  return total if len(planned) == len(programs.PHASES) else None
