"""Memory of import, sampling, training and export: configs/memory_1_7b.py.

python -m experiments.bench.memory --config=configs/memory_1_7b.py --folder=DIR

Writes random weights to DIR/in if there are none, and the export to DIR/out.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import gc
import pathlib
import shutil
import sys
import time

from absl import flags
import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import config_flags
import numpy as np

from dppo_jax.models import lora
from dppo_jax.models import policy as policy_lib
from dppo_jax.models.policy import AdaptedParams
from dppo_jax.runtime import cli, export
from dppo_jax.runtime.config.build import build_experiment
from dppo_jax.runtime.config.experiment import Experiment, replace_keys
from dppo_jax.runtime.hub import hf_config, json_files, safetensors_io
from dppo_jax.runtime.hub.safetensors_io import DTYPES, NewTensor
from dppo_jax.runtime.hub.weight_map import stacks
from dppo_jax.runtime.programs import base_weights, compiled
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.programs import state as state_lib
from dppo_jax.runtime.reporting.recorder import Stopwatch
from dppo_jax.runtime.rollouts import collect as collect_lib
from dppo_jax.runtime.rollouts.verify import open_pool

# Flags are defined only as a command: other benchmarks import this module.
if __name__ == '__main__':
  _CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Shape of the model and batch.'
  )
  _FOLDER = flags.DEFINE_string('folder', None, 'Needs twice the weights.')
  _LIMIT = flags.DEFINE_float('limit_gb', 12.0, 'Peak allowed, 10^9 bytes.')


def main() -> int:
  """Measures; returns 1 if the peak is above the limit."""
  folder = pathlib.Path(
    cli.required('folder', _FOLDER.value, 'a folder to write to')
  ).expanduser()
  config = cli.required('config', _CONFIG.value, 'an experiment')
  experiment = build_experiment(config, jax.device_count())
  meter = Meter(lambda line: print(line, flush=True))
  source, out = folder / 'in', folder / 'out'
  if not (source / hf_config.CONFIG).is_file():
    with meter.stage('write'):
      write_random_model(experiment, source)
  shutil.rmtree(out, ignore_errors=True)
  measure(experiment, source, out, meter=meter)
  worst = max(meter.stages, key=lambda stage: stage.peak)
  peak = worst.peak / 1e9
  print(f'peak       {peak:.2f} GB, at {worst.name}; limit {_LIMIT.value:g} GB')
  if peak > _LIMIT.value:
    print('error: above --limit_gb.', file=sys.stderr)
  return int(peak > _LIMIT.value)


_PROCESS = pathlib.Path('/proc/self')
_FILE_BYTES = 2 * 10**9  # Small enough for several files and an index.
_MAX_LENGTH = 40_960  # max_position_embeddings of config.json.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
  """Time and memory of a stage.

  Attributes:
    name: of the stage.
    seconds: wall time.
    peak: highest resident bytes while it ran.
    kept: resident bytes after it.
  """

  name: str
  seconds: float
  peak: int
  kept: int


class Meter:
  """Collects stages, and reports each as it ends.

  Attributes:
    stages: finished stages, in order.
  """

  def __init__(self, report: Callable[[str], None]):
    """Starts without stages; `report` takes a line."""
    self.stages: list[Stage] = []
    self._report = report

  @contextlib.contextmanager
  def stage(self, name: str) -> Iterator[None]:
    """Measures the body of the with statement.

    Raises:
      ValueError: this system has no /proc.
    """
    gc.collect()
    reset_peak()
    begin = time.monotonic()
    yield
    seconds = time.monotonic() - begin
    peak = resident('VmHWM')
    gc.collect()
    stage = Stage(name=name, seconds=seconds, peak=peak, kept=resident('VmRSS'))
    self.stages.append(stage)
    self._report(
      f'{name:<10} {seconds:7.1f} s   peak {peak / 1e9:6.2f} GB   kept'
      f' {stage.kept / 1e9:6.2f} GB'
    )


def reset_peak() -> None:
  """Resets the peak resident size.

  Raises:
    ValueError: this system does not support it.
  """
  try:
    (_PROCESS / 'clear_refs').write_text('5')
  except OSError as error:
    raise ValueError(
      f'{_PROCESS}/clear_refs: {error.strerror}; peaks are measured on Linux,'
      ' where a process may write it.'
    ) from error


def resident(key: str) -> int:
  """Resident bytes of this process: 'VmRSS' now, 'VmHWM' the peak."""
  for line in (_PROCESS / 'status').read_text().splitlines():
    if line.startswith(f'{key}:'):
      return int(line.split()[1]) * 1024
  raise ValueError(f'{_PROCESS}/status: no line {key!r}.')


def write_random_model(experiment: Experiment, folder: pathlib.Path) -> None:
  """Writes a model folder with random bfloat16 weights, one by one.

  Args:
    experiment: has the model's shape.
    folder: created; its files are overwritten.
  """
  folder.mkdir(parents=True, exist_ok=True)
  model = experiment.model
  policy = policy_lib.make_policy(model)
  shapes = nn.unbox(jax.eval_shape(policy.init, jax.random.PRNGKey(0)))
  generator = np.random.default_rng(experiment.seed)

  def make(name: str, shape: tuple[int, ...]) -> np.ndarray:
    if 'norm' in name:
      return np.ones(shape, DTYPES['BF16'])
    drawn = generator.standard_normal(shape, np.float32)
    drawn *= model.init_scale
    return drawn.astype(DTYPES['BF16'])

  tensors = [
    NewTensor(
      name=name,
      dtype=DTYPES['BF16'],
      shape=stack.shape,
      make=lambda name=name, shape=stack.shape: make(name, shape),
    )
    for _, stack in stacks(shapes)
    for name in stack.names.values()
  ]
  safetensors_io.write_folder(folder, tensors, _FILE_BYTES)
  config = hf_config.to_published(model, 'bfloat16', _MAX_LENGTH)
  json_files.write_json(folder / hf_config.CONFIG, config)


def measure(
  experiment: Experiment,
  source: pathlib.Path,
  out: pathlib.Path,
  *,
  meter: Meter,
) -> None:
  """Imports, samples, takes a train step and exports.

  Args:
    experiment: with the shape of `source`.
    source: folder of a published model.
    out: new folder.
    meter: measures every stage.

  Raises:
    ValueError: the weights are not those of the model, or peaks cannot be
      measured here.
  """
  experiment = replace_keys(experiment, {'model.pretrained': str(source)})
  compiled.use_compilation_cache(experiment.compilation_cache)
  parts = parts_lib.assemble(experiment)
  with meter.stage('import'):
    parts = base_weights.with_base(experiment, parts)
    state = state_lib.initial_state(
      experiment, parts, parts.optimizer, parts.shardings
    )
    jax.block_until_ready((parts.base, state))
  with open_pool(experiment.rewards) as pool:
    collect = collect_lib.compile_collection(experiment, parts, pool)
    with meter.stage('sample'):
      drawn = collect(state, Stopwatch())[0].drawn
  # With random weights all rewards are equal, which would give no gradient.
  rewards = jnp.arange(len(drawn.verdicts), dtype=jnp.float32) % 2
  batch, _ = compiled.compile_batcher(parts, experiment)(
    drawn.rollout, rewards, None, None
  )
  with meter.stage('train'):
    state, _ = jax.block_until_ready(
      compiled.compile_step(experiment, parts)(state, batch)
    )
  out.mkdir(parents=True, exist_ok=True)
  with meter.stage('export'):
    params = parts_lib.complete(parts, parts.base, state.params)
    if isinstance(params, AdaptedParams):
      params = lora.merge_lazily(params)
    export.write_params(params, out, 'bfloat16', _FILE_BYTES)


if __name__ == '__main__':
  cli.run(main)
