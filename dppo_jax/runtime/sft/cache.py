"""Cache of SFT weights, shared by runs with the same warm start.

Runs that differ in their trust region alone have the same warm start. A file
is named by a hash of everything that affects its weights and holds arrays only;
a damaged one is computed again.
"""

import dataclasses
import hashlib
import logging
import pathlib

import jax
import numpy as np

from dppo_jax import bounded_npz
from dppo_jax.base import Params
from dppo_jax.runtime import activity
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.hosts import coordination
from dppo_jax.runtime.storage import code_version, flat_tree
from dppo_jax.runtime.storage.files import open_atomically

_log = logging.getLogger(__name__)
_MAX_HEADERS = 64 * 2**20  # Bytes around the arrays of the file.


def load(experiment: Experiment, like: Params) -> Params | None:
  """Weights of the warm start, on the device; None if not in the cache.

  Args:
    experiment: the run, with the folder `sft.cache`.
    like: shapes, dtypes and shardings of what trains.
  """
  path = _path(experiment)
  if path is None:
    return None
  wanted = flat_tree.flatten(like)
  sizes = [leaf.size * leaf.dtype.itemsize for leaf in wanted.values()]
  try:
    with activity.under_way(f'reading {path}'):
      stored = bounded_npz.read(path, max_bytes=2 * sum(sizes) + _MAX_HEADERS)
  except FileNotFoundError:
    return None
  except (OSError, ValueError) as error:
    _log.warning(
      'sft.cache: %s is damaged (%s); the warm start is made anew', path, error
    )
    return None
  described = flat_tree.describe(stored)
  if flat_tree.differences(described, flat_tree.describe(wanted)):
    return None
  return jax.tree.map(
    lambda leaf, value: jax.device_put(value, leaf.sharding),
    like,
    flat_tree.unflatten(like, stored),
  )


def save(experiment: Experiment, params: Params) -> None:
  """Stores the weights of a warm start for later runs.

  Where the folder of `sft.cache` cannot be written, this is a warning: a run
  that has its weights goes on.

  Args:
    experiment: the run.
    params: its parameters, not donated.
  """
  path = _path(experiment)
  if path is None:
    return
  named = jax.device_get(flat_tree.flatten(params))
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomically(path) as file:
      np.savez(file, **named)
  except OSError as error:
    _log.warning(
      'sft.cache: cannot write %s (%s); the next run warms up again. Name a '
      "folder you own, or '' to keep no warm starts.",
      path,
      error.strerror,
    )


def _path(experiment: Experiment) -> pathlib.Path | None:
  """File of a warm start; None without a cache.

  With several processes none has all the weights, so nothing is stored.
  """
  config = experiment.sft
  if (
    not config.cache
    or not config.num_steps
    or not coordination.is_single_process()
  ):
    return None
  data = experiment.data
  facts = (
    experiment.seed,
    # The rate of SFT is constant, so the number of updates has no effect.
    dataclasses.replace(
      config,
      cache='',
      optimizer=dataclasses.replace(config.optimizer, num_updates=0),
    ),
    experiment.model,
    experiment.lora,
    experiment.learner.head_chunk_tokens,
    experiment.mesh,
    experiment.num_devices,
    experiment.sampling.max_completion_length,
    data.task,
    data.tokenizer,
    data.max_prompt_length,
    data.overlong,
    jax.__version__,
    jax.devices()[0].device_kind,
    code_version.of_sources(code_version.ROOT, ('dppo_jax',)),
  )
  name = hashlib.sha256(repr(facts).encode()).hexdigest()[:24]
  return pathlib.Path(config.cache).expanduser() / f'{name}.npz'
