"""Config changes with which a run fits, by their estimated memory."""

from collections.abc import Callable, Iterator, Mapping, Set
import itertools
from typing import Any, NamedTuple

from dppo_jax.planning.aot.programs import SAMPLING

Change = dict[str, Any]
# Estimated bytes by phase of a config with a change; None if it is not legal.
EstimateFn = Callable[[Change], Mapping[str, float] | None]
# What changes the results of a run, not only its time.
RESULTS = ('data.num_prompts', 'sampling.max_completion_length')
# Settings of sampling while training is looked at: they have their turn next.
_LEAST: Change = {'sampling.num_slots': 0, 'sampling.gather_fsdp': False}


class Remedy(NamedTuple):
  """A change with which all phases fit.

  Attributes:
    change: values by config path.
    num_bytes: estimated bytes per device, by phase.
  """

  change: Change
  num_bytes: dict[str, float]


def find_remedy(
  config: Mapping[str, Any],
  limits: Mapping[str, float],
  estimate: EstimateFn,
) -> Remedy | None:
  """First candidate change with which every phase fits; None if none does.

  Changes that only cost time come first, then other meshes, then fewer prompts
  or shorter completions, which affect the results.

  Args:
    config: plain nested dicts with the keys of configs/default.py.
    limits: bytes that a device has for each phase.
    estimate: bytes by phase of a config with a change.
  """
  others = limits.keys() - {SAMPLING}
  for fewer, mesh in itertools.product(_smaller(config), _meshes(config)):
    trained = _first(
      ({**fewer, **mesh, **change} for change in _training(config)),
      lambda change: _fit(estimate({**change, **_LEAST}), others, limits),
    )
    if trained is None:
      continue
    found = _first(
      ({**trained, **change} for change in _sampling(config)),
      lambda change: _fit(estimate(change), limits.keys(), limits),
    )
    sizes = None if found is None else estimate(found)
    if found is not None and sizes is not None:
      return Remedy(found, {name: sizes[name] for name in limits})
  return None


def show(change: Change) -> str:
  """Flags of a change: '--config.learner.num_microbatches=8'."""
  return ' '.join(f'--config.{path}={value}' for path, value in change.items())


def _first(
  candidates: Iterator[Change], accepted: Callable[[Change], bool]
) -> Change | None:
  return next(filter(accepted, candidates), None)


def _fit(
  sizes: Mapping[str, float] | None,
  phases: Set[str],
  limits: Mapping[str, float],
) -> bool:
  """Whether a legal config has room in these phases."""
  return sizes is not None and all(sizes[n] <= limits[n] for n in phases)


def _smaller(config: Mapping[str, Any]) -> Iterator[Change]:
  """As it is; then changes that affect the results."""
  yield {}
  limit = config['sampling']['max_completion_length']
  for i in range(1, 5):
    yield {'data.num_prompts': config['data']['num_prompts'] // 2**i}
  for i in range(1, 5):
    yield {'sampling.max_completion_length': limit // 2**i}


def _meshes(config: Mapping[str, Any]) -> Iterator[Change]:
  """As it is; then parameters split over all devices, and more tensor."""
  mesh = config['mesh']
  spread = {'data': 1, 'fsdp': -1}
  yield {}
  for i in range(5):
    wanted = {**spread, 'tensor': mesh['tensor'] * 2**i}
    changed = {key: size for key, size in wanted.items() if mesh[key] != size}
    if changed:
      yield {f'mesh.{key}': size for key, size in changed.items()}


def _sampling(config: Mapping[str, Any]) -> Iterator[Change]:
  """As it is; then fewer rows at once, and weights that stay split."""
  sampling, data = config['sampling'], config['data']
  rows = sampling['num_slots'] or data['num_prompts'] * data['group_size']
  split: Change = {'sampling.gather_fsdp': False}
  for kept in ({}, split) if sampling['gather_fsdp'] else ({},):
    yield kept
    for i in range(1, min(7, rows.bit_length())):
      yield {'sampling.num_slots': rows // 2**i, **kept}


def _training(config: Mapping[str, Any]) -> Iterator[Change]:
  """As it is; then rematerialization, and smaller microbatches.

  Larger microbatches come last, for a mesh that does not divide the smaller.
  """
  parts = config['learner']['num_microbatches'] or 1  # 0: by their size.
  remat: Change = {'model.remat': 'full'}
  remats = ({},) if config['model']['remat'] == 'full' else ({}, remat)
  more = [parts * 2**i for i in range(8)]
  less = [parts // 2**i for i in range(1, parts.bit_length())]
  for number in (*more, *less):
    change: Change = {}
    if number != parts:
      change['learner.num_microbatches'] = number
    for kept in remats:
      yield {**kept, **change}
