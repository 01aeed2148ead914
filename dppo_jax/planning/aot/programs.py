"""Programs of a step, compiled for hardware that is not attached.

Arguments are shapes with shardings; nothing is allocated or run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import functools
import re
import time
from typing import Any

import jax
import numpy as np

from dppo_jax import parallel
from dppo_jax.planning.aot import costs, hlo, step_shapes
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.programs import base_weights
from dppo_jax.runtime.programs import compiled as compiled_lib
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.rollouts import weight_sync
from dppo_jax.sampling import continuous, slot_plan

SAMPLING, SCORING, TRAINING = 'sampling', 'scoring', 'training'
PHASES = (SAMPLING, SCORING, TRAINING)
_NUM_LARGEST = 6
_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
  """Bytes per device.

  Attributes:
    arguments: of the program.
    outputs: that do not alias arguments.
    temporaries: while it runs, KV cache included.
    code: of the program.
    beside: other state on the device, not passed to the program.
  """

  arguments: float
  outputs: float
  temporaries: float
  code: float
  beside: float

  @property
  def total(self) -> float:
    """Bytes that the device needs."""
    return float(sum(dataclasses.astuple(self)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
  """A compiled program.

  Attributes:
    name: of PHASES.
    runs: executions per step.
    seconds: compilation time.
    memory: bytes per device.
    cache: bytes of the KV cache, within `temporaries`; 0 if there is none.
    arguments: the largest ones.
    arrays: the largest ones that it allocates.
    collectives: of one run.
    loops: loops whose trip count the compiler does not state.
    costs: the compiler's estimates by kind of operation, and HBM bytes.
    refused: reason why compilation failed, '' if it did not; if set, outputs
      are unknown, and temporaries may include arguments.
    unread: reason why the program could not be analyzed, '' if it was; if set,
      arrays and collectives are unknown.
  """

  name: str
  runs: int
  seconds: float
  memory: Memory
  cache: float
  arguments: list[hlo.NamedArray]
  arrays: list[hlo.NamedArray]
  collectives: list[hlo.Collective]
  loops: list[hlo.Loop]
  costs: list[costs.Cost]
  refused: str
  unread: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Planned:
  """A program to compile, and what is on the devices while it runs.

  Attributes:
    runs: executions per step.
    lower: makes a `jax.stages.Lowered` of it.
    arguments: trees of ShapeDtypeStruct, by name, in order.
    beside: other state on the device.
  """

  runs: int
  lower: Callable[[], Any]
  arguments: dict[str, Any]
  beside: Any


def compile_phases(
  experiment: Experiment,
  devices: Sequence[Any],
  names: Sequence[str],
  log: Callable[[str], None],
) -> Iterator[Phase]:
  """Compiled phases of a step, one by one.

  Args:
    experiment: the run.
    devices: from `topologies.describe`.
    names: keys of PHASES.
    log: receives a line before each.
  """
  # Cache entries for such devices cannot be loaded again.
  jax.config.update('jax_enable_compilation_cache', False)
  experiment = _at_the_limit(experiment)
  parts = parts_lib.assemble_model(experiment, devices)
  if experiment.lora is not None:
    base = base_weights.abstract_base(experiment, devices)
    parts = dataclasses.replace(parts, base=base)
  for name, program in _programs(experiment, parts).items():
    if name in names:
      log(f'Compiling {name} for {parts.mesh.size:,} devices')
      yield _compile(name, program, experiment, parts)


def _at_the_limit(experiment: Experiment) -> Experiment:
  """The run whose rows are all as wide as completions may get.

  Narrower widths take less, and are branches that an estimate would add up.
  """
  learner = experiment.learner
  buckets = dataclasses.replace(learner.buckets, count=1)
  learner = dataclasses.replace(learner, buckets=buckets)
  return dataclasses.replace(experiment, learner=learner)


def _programs(
  experiment: Experiment, parts: parts_lib.ModelParts
) -> dict[str, _Planned]:
  state = parts.abstract_state
  handed = weight_sync.compile_weight_sync(parts, experiment)
  weights = handed.abstract_weights
  sampler = compiled_lib.compile_sampler(handed.parts, handed.config)
  scorer = compiled_lib.compile_scorer(parts, experiment)
  drawn = dict(
    params=weights,
    prompts=step_shapes.prompts(experiment, parts.mesh),
    key=state.key,
  )
  rollout = step_shapes.spread(sampler.shapes(*drawn.values()), parts.mesh)
  scored = dict(params=state.params, rollout=rollout)
  batch = step_shapes.batch(
    experiment, parts, rollout, scorer.shapes(*scored.values())
  )
  recording = experiment.ledger.every_n_steps > 0
  step = compiled_lib.compile_step(experiment, parts, recording=recording)
  trained = dict(state=state, batch=batch)
  head = step_shapes.anchor_head(experiment, parts, handed, state.params)
  recompute, refer = step_shapes.scores(experiment)
  # Reference policy of the KL penalty.
  reference = state.params if refer else None
  # Rollouts sampled ahead, and their policies.
  kept = weights if weight_sync.keeps_weights(experiment) else None
  ahead = (
    (rollout, kept, None if recompute else head),
  ) * experiment.sampling.lag
  bases = parts.base, handed.parts.base
  resting, handed_base = (None, None) if bases[0] is bases[1] else bases
  return {
    SAMPLING: _Planned(
      runs=1,
      lower=functools.partial(sampler.lower, *drawn.values()),
      arguments=dict(base=sampler.base, **drawn),
      beside=(
        state.opt_state,
        reference,
        ahead,
        resting,
        None if handed.move is None else state.params,
      ),
    ),
    SCORING: _Planned(
      runs=recompute + refer,
      lower=functools.partial(scorer.lower, *scored.values()),
      arguments=dict(base=scorer.base, **scored),
      beside=(state.opt_state, reference, ahead, handed_base),
    ),
    TRAINING: _Planned(
      runs=1,
      lower=functools.partial(step.lower, *trained.values(), head),
      arguments=dict(**trained, shared=(head, step.base)),
      beside=(reference, ahead, handed_base),
    ),
  }


def _compile(
  name: str,
  program: _Planned,
  experiment: Experiment,
  parts: parts_lib.ModelParts,
) -> Phase:
  begin = time.monotonic()
  lowered = program.lower()
  beside = bytes_per_device(program.beside)
  refused, arrays = '', []
  compiled = None
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    found = needed(str(error))
    if found is None:
      raise
    memory = _refused_memory(program, *found, beside)
    refused = 'out of memory in compilation'
    arrays = refused_arrays(str(error))
  else:
    memory = _memory(compiled.memory_analysis(), beside)
  phase = Phase(
    name=name,
    runs=program.runs,
    arguments=_largest_arguments(program.arguments),
    seconds=time.monotonic() - begin,
    memory=memory,
    cache=0,
    arrays=arrays,
    collectives=[],
    loops=[],
    costs=[],
    refused=refused,
    unread='',
  )
  return (
    phase if compiled is None else _read(phase, compiled, experiment, parts)
  )


def _refused_memory(
  program: _Planned, size: float, whole: bool, beside: float
) -> Memory:
  """Memory of a program that needs `size`, with arguments if `whole`."""
  return Memory(
    arguments=0 if whole else bytes_per_device(program.arguments),
    outputs=0,
    temporaries=size,
    code=0,
    beside=beside,
  )


def _read(
  phase: Phase,
  compiled: Any,
  experiment: Experiment,
  parts: parts_lib.ModelParts,
) -> Phase:
  """The phase with what its program's text says."""
  try:
    module = hlo.Module(compiled.as_text())
  except jax.errors.JaxRuntimeError as error:
    # The output of another libtpu version may not be readable by this jaxlib.
    return dataclasses.replace(phase, unread=str(error).splitlines()[0])
  trips = _trips(experiment, parts)
  found, loops = hlo.collectives(module, trips)
  sampled = phase.name == SAMPLING
  return dataclasses.replace(
    phase,
    cache=_cache_bytes(module, experiment) if sampled else 0,
    arrays=hlo.largest_arrays(module, _NUM_LARGEST),
    collectives=found,
    loops=loops,
    costs=costs.by_kind(costs.costs(module, trips)),
  )


def _trips(
  experiment: Experiment, parts: parts_lib.ModelParts
) -> Mapping[str, int]:
  """Trip counts of data-dependent loops, for completions at full length."""
  step, data = experiment.learner, experiment.data
  rows = data.num_prompts * data.group_size
  rows //= step.num_minibatches * step.num_microbatches
  tokens = rows * experiment.sampling.max_completion_length
  tokens //= parallel.num_batch_shards(parts.mesh)
  layout = compiled_lib.vocabulary_layout(experiment, parts.mesh, 1.0)
  trips = {'shard_map': -(-tokens // layout.head_chunk_tokens)}
  slots = slot_plan.plan_for(
    experiment.sampling,
    data.num_prompts,
    parallel.num_batch_shards(parts.mesh),
  )
  if slots is None:
    return trips
  turns = slots.rows // slots.refill
  columns = experiment.sampling.max_completion_length
  decoded = -(-slots.rows * (columns - 1) // (slots.slots * turns))
  # The decode loop is nested in the refill loop.
  return {
    **trips,
    continuous.DECODE_LOOP: decoded,
    continuous.REFILL_LOOP: turns,
  }


def _memory(found: Any, beside: float) -> Memory:
  return Memory(
    arguments=found.argument_size_in_bytes,
    outputs=found.output_size_in_bytes - found.alias_size_in_bytes,
    temporaries=found.temp_size_in_bytes,
    code=found.generated_code_size_in_bytes,
    beside=beside,
  )


def _cache_bytes(module: hlo.Module, experiment: Experiment) -> float:
  """Bytes of the KV cache [L, rows, heads, columns, width] carried by a loop.

  With unrolled layers there is no layer axis.
  """
  columns = {
    experiment.data.max_prompt_length,
    experiment.sampling.max_completion_length,
  }

  def is_cache(shape: tuple[int, ...]) -> bool:
    stacked = len(shape) == 5 and shape[0] == experiment.model.num_layers
    return (stacked or len(shape) == 4) and shape[-2] in columns

  return max(
    (
      sum(hlo.type_bytes(text) for text, shape in loop if is_cache(shape))
      for loop in hlo.loop_carries(module)
    ),
    default=0.0,
  )


def needed(message: str) -> tuple[float, bool] | None:
  """Bytes that a program needs, from an out-of-memory message; else None.

  Returns:
    Bytes, and whether they include arguments.
  """
  size = r'([\d.]+)([KMGT]?)'
  whole = re.search(rf'Used {size}i?B? of', message)
  part = re.search(rf'required for HLO temporaries \({size}\)', message)
  found = whole or part
  if found is None:
    return None
  return float(found[1]) * _UNITS[found[2]], bool(whole)


def refused_arrays(message: str) -> list[hlo.NamedArray]:
  """The largest arrays named by an out-of-memory message."""
  found = re.findall(
    r'Size: ([\d.]+)([KMGT]?)\b.*?(?:Operator: op_name="([^"]*)".*?)?'
    r'Shape: (\S+?)[{\s]',
    message,
    re.DOTALL,
  )
  return [
    hlo.NamedArray(name=name, shape=shape, num_bytes=float(size) * _UNITS[unit])
    for size, unit, name, shape in found[:_NUM_LARGEST]
  ]


def bytes_per_device(tree: Any) -> float:
  """Bytes per device of shapes with shardings."""
  return float(sum(map(_leaf_bytes, jax.tree.leaves(tree))))


def _leaf_bytes(leaf: Any) -> float:
  shape = leaf.sharding.shard_shape(leaf.shape)
  return float(np.prod(shape)) * leaf.dtype.itemsize


def _largest_arguments(tree: Any) -> list[hlo.NamedArray]:
  listed = []
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    shape = ','.join(map(str, leaf.sharding.shard_shape(leaf.shape)))
    listed.append(
      hlo.NamedArray(
        name=jax.tree_util.keystr(path, simple=True, separator='/'),
        shape=f'{leaf.dtype.name}[{shape}]',
        num_bytes=_leaf_bytes(leaf),
      )
    )
  ranked = sorted(listed, key=lambda array: -array.num_bytes)
  return ranked[:_NUM_LARGEST]
