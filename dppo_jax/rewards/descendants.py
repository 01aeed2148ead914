"""Processes that verifiers start: found and killed with their worker.

Most stay in the process group of the worker, and are killed with it. Those that
leave it are found by an environment variable that every child inherits. Where
the trainer itself is killed, nobody is left to do so: each worker has a guard,
a forked process that waits for the end of the trainer.
"""

import contextlib
import os
import pathlib
import select
import signal

# Environment variable with a value of its own per worker.
MARK = 'DPPO_JAX_WORKER'


def kill_marked(mark: str) -> None:
  """Kills the other processes that carry a mark, where /proc shows them."""
  wanted = f'{MARK}={mark}'.encode()
  for path in pathlib.Path('/proc').glob('[0-9]*/environ'):
    number = int(path.parent.name)
    with contextlib.suppress(OSError):  # Another user's, or it has ended.
      if wanted in path.read_bytes().split(b'\0') and number != os.getpid():
        os.kill(number, signal.SIGKILL)


def start_guard(trainer: int) -> int:
  """Process id of a guard that ends this process group after the trainer.

  Call it before there are other threads.

  Args:
    trainer: read end of a pipe whose only write end the trainer holds; nothing
      is read from it.
  """
  guard = os.fork()
  if guard:
    return guard
  try:
    _close_all_but(trainer)
    waiting = select.poll()
    waiting.register(trainer, 0)  # For POLLHUP, which is always reported.
    waiting.poll()
    kill_marked(os.environ.get(MARK, '-'))
    os.killpg(0, signal.SIGKILL)
  finally:
    os._exit(0)


def _close_all_but(kept: int) -> None:
  """Closes all other descriptors: an open pipe would look like a worker."""
  # Not up to the limit, which may be a thousand million.
  for name in os.listdir('/dev/fd'):
    if int(name) != kept:
      with contextlib.suppress(OSError):  # The one that listed them.
        os.close(int(name))
