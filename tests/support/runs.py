"""Real runs, in this process and in others, that several tests look at."""

import contextlib
import functools
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from unittest import mock

import jax
import numpy as np
import pytest

from dppo_jax.analysis.jobs import pool, worker
from dppo_jax.configs import default, tiny
from dppo_jax.runtime import loop
from dppo_jax.runtime.config.build import build_experiment
from dppo_jax.runtime.config.experiment import replace_keys
from dppo_jax.runtime.programs import compiled
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.reporting import header
from dppo_jax.runtime.storage import metrics_log, workdir
from dppo_jax.runtime.storage.checkpoints import Checkpoints
from tests.support import compilation, fork_server, programs

compilation.write_small_arrays_whole()
ROOT = pathlib.Path(__file__).parents[2]
_CACHE = jax.config.jax_compilation_cache_dir
# Against a hang only, seconds; a busy machine takes ten times an idle one.
END_S = 540
# Process -> descriptor of the file that its native libraries write.
_NATIVE = {}
# One update of one minibatch of four rows: for what must merely run.
SMALLEST = {
  'num_steps': 1,
  'data.num_prompts': 4,
  'data.group_size': 2,
  'learner.num_minibatches': 1,
  'learner.share_prompt_prefix': False,  # Half the time to compile.
  'sft.num_steps': 0,
  'evaluation.greedy': False,
  'evaluation.num_prompts': 4,
  'evaluation.final_num_prompts': 4,
}


def config(**overrides):
  """configs/tiny.py; a path is written with '__' for its dots."""
  result = tiny.get_config()
  # The cache of the tests, which a process can open only once.
  result.compilation_cache = ''
  flat = {path.replace('__', '.'): v for path, v in overrides.items()}
  result.update_from_flattened_dict(flat)
  return result


def smallest(**overrides):
  return config(**SMALLEST, **overrides)


def experiment(settings=None, num_devices=1):
  return build_experiment(
    config() if settings is None else settings, num_devices
  )


def changed(experiment, **changes):
  """An Experiment with fields of its sections replaced: `rewards__verifier`."""
  return replace_keys(
    experiment, {path.replace('__', '.'): v for path, v in changes.items()}
  )


def devices(count):
  """Environment of a process with so many devices, that compiles as we do."""
  flag = '--xla_force_host_platform_device_count='
  return {
    'XLA_FLAGS': os.environ['XLA_FLAGS'].replace(f'{flag}8', f'{flag}{count}')
  }


@contextlib.contextmanager
def quick_compilation():
  """Has XLA optimize as little as it can, and runs share their programs."""
  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', True)
  try:
    with programs.shared():
      yield
  finally:
    jax.config.update('jax_disable_most_optimizations', before)


@contextlib.contextmanager
def jobs_in_process():
  """Has the jobs of `jobs.pool` run here, on one device, and quickly."""

  def run_here(missing, parallel, show):
    del parallel, show
    for folder, job in missing.items():
      settings = workdir.overlay(default.get_config(), dict(job.config))
      worker.execute(settings, folder, num_devices=1)
    return {}

  with contextlib.ExitStack() as stack:
    stack.enter_context(quick_compilation())
    for target, name, value in (
      (compiled, 'use_compilation_cache', lambda folder: None),
      (pool, '_run_missing', run_here),
    ):
      stack.enter_context(mock.patch.object(target, name, value))
    yield


def run(settings, folder, num_devices=1):
  """Trains as `experiments.train` does, but for the picture; the facts."""
  built = experiment(settings, num_devices)
  folder = workdir.open_workdir(folder)
  with quick_compilation(), workdir.locked(folder):
    workdir.check_config(folder, built.resolved)
    return loop.run(built, folder)


def parts(settings=None):
  with quick_compilation():
    return parts_lib.assemble(experiment(settings))


@functools.cache
def finished(base):
  """Folder of a finished run of configs/tiny.py; look, copy, change nothing."""
  folder = pathlib.Path(base) / 'finished_run'
  header.finish(folder, run(config(), folder), [])
  return folder


def rows(folder):
  """The metrics of a run, without those of its clock."""
  return [
    {k: v for k, v in row.items() if not k.startswith(('time/', 'throughput/'))}
    for row in metrics_log.read_rows(folder / metrics_log.METRICS_FILE)
  ]


def state(folder, settings=None):
  """Bytes of every array of the latest checkpoint, by name."""
  store = Checkpoints(folder / workdir.CHECKPOINTS, 1, '', read_only=True)
  restored, _ = store.restore(
    parts(settings).abstract_state, store.latest_step()
  )
  store.close()
  return {
    jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
    for path, leaf in jax.tree_util.tree_leaves_with_path(restored)
  }


def assert_same(got, expected, settings=None):
  """Metrics, samples and state are equal, bit for bit."""
  assert rows(got) == rows(expected)
  samples = [
    (f / metrics_log.SAMPLES_FILE).read_text() for f in (got, expected)
  ]
  assert samples[0] == samples[1]
  assert samples[0]
  assert state(got, settings) == state(expected, settings)


def start(module, *arguments, **options):
  """Starts a command as a user does: one device, the cache of the tests."""
  plain = {
    **devices(1),
    # As little optimization as `quick_compilation`: they share a cache.
    'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
    'JAX_COMPILATION_CACHE_DIR': _CACHE,
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
  }
  return _start(f'experiments.{module}', *arguments, **(plain | options))


def start_code(code, *arguments, **options):
  """Starts `python -c`."""
  return _start('-c', code, *map(str, arguments), **options)


def _start(*arguments, stdin=False, fresh=False, **environment):
  """Its pipes carry what Python writes; see `tests.support.streams`.

  Args:
    *arguments: of `streams`.
    stdin: whether it is written to.
    fresh: it imports what it uses, and is a child of this process; else it is
      forked from one that has imported it, which takes half the time.
    **environment: what differs from this process's.
  """
  native, path = tempfile.mkstemp()
  os.unlink(path)
  environment = {**os.environ, **environment}
  if fresh:
    process = subprocess.Popen(
      [sys.executable, '-m', 'tests.support.streams', str(native), *arguments],
      cwd=ROOT,
      env=environment,
      stdin=subprocess.PIPE if stdin else None,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      pass_fds=(native,),
    )
  else:
    process = fork_server.start(
      arguments, ROOT, environment, stdin=stdin, native=native
    )
  _NATIVE[process] = native
  return process


def end(process, request=None):
  """(exit code, stdout, stderr) of a command once it has ended.

  What native libraries wrote is printed, for whoever reads a failure.
  """
  out, err = process.communicate(request, timeout=END_S)
  native = _NATIVE.pop(process)
  text = os.pread(native, os.fstat(native).st_size, 0)
  os.close(native)
  print(text.decode(errors='replace'))
  return process.returncode, out, err


def said(code, *arguments, **options):
  """What `python -c` prints."""
  exit_code, out, err = end(start_code(code, *arguments, **options))
  assert exit_code == 0, err
  return out


def wait(condition, *processes):
  """Until `condition` holds, while all of the processes run."""
  deadline = time.monotonic() + END_S
  while not condition():
    ended = [process.poll() is not None for process in processes]
    if any(ended) or time.monotonic() > deadline:
      for process in processes:
        process.kill()
      pytest.fail(f'missed it: {[end(process) for process in processes]}')
    time.sleep(0.005)


def last_step(folder):
  """Step of the last row of metrics that is on disk; -1 where there is none."""
  found = metrics_log.read_rows(folder / metrics_log.METRICS_FILE)
  return found[-1]['step'] if found else -1


def train(folder, *overrides, **environment):
  return start(
    'train',
    '--config=configs/tiny.py',
    f'--workdir={folder}',
    f'--config.compilation_cache={_CACHE}',
    *overrides,
    **environment,
  )
