"""A job: one run's config, and the folder of its cached result.

The folder's name is a hash of everything that affects the run's numbers, so a
result of other code or another config is never reused, and two figures with the
same run share it.
"""

from collections.abc import Mapping
import copy
import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
from typing import Any

from dppo_jax import bounded_json
from dppo_jax.runtime.storage import code_version as code_version_lib
from dppo_jax.runtime.storage import workdir

FACTS = 'job.json'
LOG = 'log.txt'

# Keys that affect neither numbers nor recorded files.
_FREE = tuple(key for key in workdir.FREE_KEYS if key != 'ledger')
# Code for planning, analysis and conformance does not affect a run.
_WITHOUT = tuple(
  f'dppo_jax/{name}' for name in ('analysis', 'planning', 'conformance')
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """One run.

  Attributes:
    name: of its variant; does not affect the result.
    config: every key of configs/default.py, as plain nested dicts.
  """

  name: str
  config: Mapping[str, Any]

  @property
  def seed(self) -> int:
    """Seed of its config."""
    return self.config['seed']


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
  """Outcome of a job.

  Attributes:
    job: the job.
    folder: of the run.
    error: reason why there is no result; '' if there is one.
    wall_s: wall seconds of the attempt that finished.
    cpu_s: CPU seconds.
    device: of the run.
  """

  job: Job
  folder: pathlib.Path
  error: str
  wall_s: float = 0.0
  cpu_s: float = 0.0
  device: str = ''


def make_job(
  name: str, base: Any, overrides: Mapping[str, Any], seed: int
) -> Job:
  """A job from a ConfigDict and flat overrides.

  Args:
    name: of the variant.
    base: of a config file, not changed.
    overrides: by path, such as 'trust_region.delta_low'; presets are such.
    seed: of the run.

  Raises:
    ValueError: a key does not exist, or its value has the wrong type.
  """
  config = copy.deepcopy(base)
  for path, value in {**overrides, 'seed': seed}.items():
    try:
      config.update_from_flattened_dict({path: value})
    except (KeyError, AttributeError, TypeError, ValueError) as error:
      reason = str(error).strip('"\'').splitlines()[0]
      raise ValueError(f'{name}: cannot set {path}={value!r}: {reason}') from (
        error
      )
  return Job(name=name, config=config.to_dict())


def code_version() -> str:
  """Hash of the code that computes a run: 16 hexadecimal digits."""
  root = code_version_lib.ROOT
  return code_version_lib.of_sources(root, ('dppo_jax',), _WITHOUT)


def key(job: Job, code: str) -> str:
  """Hash of everything that affects a run's numbers: 16 hexadecimal digits.

  Args:
    job: the run.
    code: from `code_version`.
  """
  config = _without(job.config, '')
  facts = [code, importlib.metadata.version('jax'), config]
  text = json.dumps(facts, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def folder_of(job: Job, root: pathlib.Path, code: str) -> pathlib.Path:
  """Folder of a run below `root`."""
  rule = job.config['trust_region']['rule']
  return root / f'{rule}-seed{job.seed}-{key(job, code)}'


def finished(job: Job, folder: pathlib.Path) -> Outcome | None:
  """Cached outcome of a finished job; None if it is not finished."""
  try:
    facts = bounded_json.read_object(folder / FACTS)
    return Outcome(job=job, folder=folder, error='', **facts)
  except (OSError, ValueError, TypeError):
    return None


def _without(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
  """Config without the keys that do not affect results."""
  kept = {}
  for name, value in tree.items():
    path = f'{prefix}{name}'
    if path in _FREE:
      continue
    if isinstance(value, Mapping):
      value = _without(value, f'{path}.')
    kept[name] = value
  return kept
