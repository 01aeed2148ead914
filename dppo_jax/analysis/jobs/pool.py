"""Runs a list of jobs in separate processes; results are cached.

  jobs = [make_job('TV', config, {'trust_region.divergence': 'binary_tv'}, s)
          for s in range(3)]
  outcomes = run_jobs(jobs, pathlib.Path('runs/jobs'), parallel=2)
  rows = metrics_log.read_rows(outcomes[0].folder / metrics_log.METRICS_FILE)

Called again, it runs only missing jobs and resumes interrupted ones. A failed
run is reported in its outcome and retried the next time; the others continue.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from dppo_jax.analysis.jobs import job as job_lib
from dppo_jax.analysis.jobs.job import Job, Outcome
from dppo_jax.runtime.activity import format_seconds
from dppo_jax.runtime.storage import code_version

WORKER = 'dppo_jax.analysis.jobs.worker'
Show = Callable[[str], None]
# Seconds between lines about runs that are under way.
_EVERY_S = 9.0  # `activity` would tell no more than the command.
_TAIL = 2000  # Bytes of a log that its last line is sought in.
_MAX_SHOWN = 100  # Characters of it.
ExecuteFn = Callable[[Job, pathlib.Path], str]


def _to_stderr(text: str) -> None:
  print(text, file=sys.stderr, flush=True)


def run_jobs(
  jobs: Sequence[Job],
  root: pathlib.Path,
  *,
  parallel: int = 1,
  show: Show = _to_stderr,
) -> list[Outcome]:
  """Outcomes of all jobs, after running the unfinished ones.

  Args:
    jobs: of any configs; equal ones run once.
    root: parent of the runs' folders.
    parallel: processes at a time.
    show: receives progress lines.

  Returns:
    One outcome per job, in order.

  Raises:
    ValueError: `parallel` is below 1.
    KeyboardInterrupt: SIGTERM or Ctrl-C; running jobs have saved their state.
  """
  if parallel < 1:
    raise ValueError(f'--parallel: got {parallel}; processes, at least 1.')
  code = job_lib.code_version()
  folders = [job_lib.folder_of(job, root, code) for job in jobs]
  missing: dict[pathlib.Path, Job] = {}
  for job, folder in zip(jobs, folders, strict=True):
    if job_lib.finished(job, folder) is None:
      missing.setdefault(folder, job)
  num_kept = len(set(folders)) - len(missing)
  show(f'{len(missing)} runs to do, {num_kept} finished before, in {root}')
  errors = _run_missing(missing, parallel, show) if missing else {}
  outcomes = []
  for job, folder in zip(jobs, folders, strict=True):
    done = job_lib.finished(job, folder)
    error = errors.get(folder) or 'it left no result'
    outcomes.append(done or Outcome(job=job, folder=folder, error=error))
  return outcomes


def _run_missing(
  missing: dict[pathlib.Path, Job], parallel: int, show: Show
) -> dict[pathlib.Path, str]:
  """Errors of failed jobs, after running jobs by folder."""
  todo: queue.SimpleQueue[tuple[pathlib.Path, Job]] = queue.SimpleQueue()
  for item in missing.items():
    todo.put(item)
  errors: dict[pathlib.Path, str] = {}
  num_done = 0
  begin = time.monotonic()
  lock = threading.Lock()
  running: dict[pathlib.Path, tuple[Job, float]] = {}
  over = threading.Event()
  workers = [_Worker() for _ in range(min(parallel, len(missing)))]

  def work(worker: _Worker) -> None:
    nonlocal num_done
    while not worker.stopping:
      try:
        folder, job = todo.get_nowait()
      except queue.Empty:
        return
      with lock:
        running[folder] = (job, time.monotonic())
      error = worker.run(job, folder)
      with lock:
        del running[folder]
        if worker.stopping:
          return
        num_done += 1
        if error:
          errors[folder] = error
        ended = error or 'finished'
        spent = time.monotonic() - begin
        left = format_seconds(spent / num_done * (len(missing) - num_done))
        show(
          f'[{num_done}/{len(missing)}] {job.name}, seed {job.seed}: {ended}'
          f' · {format_seconds(spent)} spent, about {left} left'
        )

  def tell() -> None:
    while not over.wait(_EVERY_S):
      with lock:
        lines = [
          _under_way(job, folder, time.monotonic() - then)
          for folder, (job, then) in running.items()
        ]
        for line in lines:
          show(line)

  threads = [threading.Thread(target=work, args=(w,)) for w in workers]
  teller = threading.Thread(target=tell)
  with _interrupted_by_sigterm():
    try:
      for thread in (*threads, teller):
        thread.start()
      for thread in threads:
        thread.join()
    finally:
      over.set()
      for worker in workers:
        worker.stop()
      for thread in threads:
        thread.join()
      if teller.ident is not None:
        teller.join()
  return errors


def _under_way(job: Job, folder: pathlib.Path, seconds: float) -> str:
  """What a job has been at for so long, by the last line of its log."""
  last = ''
  with contextlib.suppress(OSError), (folder / job_lib.LOG).open('rb') as log:
    log.seek(max(log.seek(0, os.SEEK_END) - _TAIL, 0))
    lines = log.read().decode('utf-8', 'replace').split('\n')
    last = next((line for line in reversed(lines) if line.strip()), '')
  return (
    f'  {job.name}, seed {job.seed}: {format_seconds(seconds)},'
    f' {last.strip()[:_MAX_SHOWN] or "starting"}'
  )


class _Worker:
  """A process that runs jobs, restarted if it dies."""

  def __init__(self) -> None:
    self.stopping = False
    self._process: subprocess.Popen[str] | None = None

  def run(self, job: Job, folder: pathlib.Path) -> str:
    """Error of one job after running it, or ''."""
    if self._process is None:
      self._process = subprocess.Popen(
        [sys.executable, '-m', WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=code_version.ROOT,
        # Ctrl-C comes to us alone; they get the one signal that we send.
        start_new_session=True,
      )
    if self.stopping:  # Since before there was a process to end.
      self._process.terminate()
    process = self._process
    request = {'folder': os.path.abspath(folder), 'config': job.config}
    reply = ''
    # The process may die at any time.
    with contextlib.suppress(OSError, ValueError):
      _pipe(process.stdin).write(json.dumps(request) + '\n')
      _pipe(process.stdin).flush()
      reply = _pipe(process.stdout).readline()
    if reply.endswith('\n'):
      return json.loads(reply)['error']
    code = process.wait()
    self._close()
    return f'its process ended with exit code {code}'

  def stop(self) -> None:
    """Ends the process; an active run saves its state first."""
    self.stopping = True
    if self._process is None:
      return
    if self._process.poll() is None:
      self._process.terminate()
      self._process.wait()
    self._close()

  def _close(self) -> None:
    process, self._process = self._process, None
    if process is None:
      return
    with contextlib.suppress(OSError):  # Unread requests are lost anyway.
      _pipe(process.stdin).close()
    _pipe(process.stdout).close()


def _pipe(pipe: Any) -> Any:
  return pipe


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
  """Makes SIGTERM act like Ctrl-C, if signals can be caught in this thread."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return

  def interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt

  before = signal.signal(signal.SIGTERM, interrupt)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)
