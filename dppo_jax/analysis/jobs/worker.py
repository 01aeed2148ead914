"""Worker process that runs jobs in turn, so that imports are paid once.

python -m dppo_jax.analysis.jobs.worker < REQUESTS

Started by the pool: one request per line of standard input, one reply per line
of standard output.
"""

import contextlib
import gc
import json
import os
import pathlib
import shutil
import sys
import time
from typing import Any, TextIO

import jax

from dppo_jax.analysis.jobs import job as job_lib
from dppo_jax.configs import default
from dppo_jax.runtime import loop
from dppo_jax.runtime.config.build import build_experiment
from dppo_jax.runtime.hosts.preemption import Preempted
from dppo_jax.runtime.reporting import compiling, library_logs, summary
from dppo_jax.runtime.storage import files, workdir


def execute(
  config: Any, folder: pathlib.Path, num_devices: int | None = None
) -> dict[str, Any]:
  """Facts of a run, after training or resuming it in `folder`.

  Args:
    config: a ConfigDict.
    folder: of the run.
    num_devices: number of devices to train on, the first ones; None for all.

  Returns:
    Facts read by `job.finished`: wall and CPU seconds, and the device.

  Raises:
    Preempted: SIGTERM or Ctrl-C; the state is saved if possible.
    Exception: any error of a run.
  """
  begin, begin_cpu = time.monotonic(), time.process_time()
  experiment = build_experiment(config, num_devices or jax.device_count())
  folder = workdir.open_workdir(folder)
  with (
    workdir.locked(folder),
    (folder / job_lib.LOG).open('a') as log,
    contextlib.redirect_stderr(log),
  ):
    workdir.check_config(folder, experiment.resolved)
    summary.write_summary(folder, loop.run(experiment, folder))
    facts = {
      'wall_s': round(time.monotonic() - begin, 2),
      'cpu_s': round(time.process_time() - begin_cpu, 2),
      'device': device(),
    }
    files.write_atomically(folder / job_lib.FACTS, json.dumps(facts) + '\n')
    # A figure reads metrics and ledgers; the weights of hundreds of runs
    # would fill a disk.
    shutil.rmtree(folder / workdir.CHECKPOINTS, ignore_errors=True)
  return facts


def device() -> str:
  """Devices of this process."""
  kind = jax.devices()[0].device_kind
  if kind == 'cpu':
    return f'{len(os.sched_getaffinity(0))} CPU cores'
  return f'{jax.device_count()} × {kind}'


def serve(
  defaults: Any,
  requests: TextIO,
  replies: TextIO,
  num_devices: int | None = None,
) -> int:
  """Exit code after running one job per line, until there are no more.

  A failed job is reported, and the next one is awaited.

  Args:
    defaults: returns a new copy of configs/default.py.
    requests: lines of JSON: 'folder' and 'config'.
    replies: lines of JSON: 'error', '' for a finished job.
    num_devices: of `execute`.
  """
  for line in requests:
    request = json.loads(line)
    error = ''
    try:
      config = workdir.overlay(defaults(), request['config'])
      execute(config, pathlib.Path(request['folder']), num_devices)
    except Preempted as stopped:
      return stopped.exit_code
    except Exception as failure:
      error = f'{type(failure).__name__}: {failure}'
      print(f'{request["folder"]}: {error}', file=sys.stderr)
    replies.write(json.dumps({'error': error}) + '\n')
    replies.flush()
    jax.clear_caches()  # The next job compiles anew; nothing else grows.
    gc.collect()
  return 0


def main() -> int:
  """Exit code after serving all requests."""
  library_logs.quieten()
  compiling.watch()  # Into the log, whose last line the pool shows.
  # A run may print to stdout, so replies get a separate file descriptor.
  replies = os.fdopen(os.dup(sys.stdout.fileno()), 'w')
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
  return serve(default.get_config, sys.stdin, replies)


if __name__ == '__main__':
  sys.exit(main())
