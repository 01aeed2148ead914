"""Processes that need not import JAX and this package once more.

A server imports them once for a worker of the tests and forks itself for each
process that is asked for, as `multiprocessing`'s forkserver does; that one
tells nothing of the CPU time of its children, and leaves them the descriptors
of its own. The server has no threads and no backend of JAX. A fork has an
environment, a configuration of JAX and descriptors of its own, and ends as an
interpreter does.

What a process imports is seen only in one that was not forked.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import threading

# What commands import, but for the modules that define flags, and those that
# they import late.
_PRELOADED = (
  'dppo_jax.runtime.loop',
  'dppo_jax.planning.dry_run',
  'dppo_jax.runtime.hosts.coordination',
  'dppo_jax.runtime.reporting.header',
  'jax.experimental.multihost_utils',
  'matplotlib.backends.backend_agg',
  'matplotlib.figure',
)
_LARGEST = 1 << 20  # A request, bytes.
_LOOK_S = 0.005  # Between two looks for children that ended.


class Forked:
  """What `subprocess.Popen` is for a process that the server forked."""

  def __init__(self, server, pid, pipes, ended):
    self._server = server
    self.pid = pid
    self.returncode = None
    self.stdin, self.stdout, self.stderr = pipes
    self._ended = ended  # One line: status and CPU-seconds.

  def wait(self, timeout=None):
    """Exit code, -N after signal N.

    Raises:
      subprocess.TimeoutExpired: it runs on.
    """
    if self.returncode is None:
      if not select.select([self._ended], [], [], timeout)[0]:
        raise subprocess.TimeoutExpired(str(self.pid), timeout)
      status, seconds = json.loads(self._ended.readline())
      self._ended.close()
      self.returncode = os.waitstatus_to_exitcode(status)
      self._server.seconds = seconds
    return self.returncode

  def poll(self):
    """Exit code; None while it runs."""
    with contextlib.suppress(subprocess.TimeoutExpired):
      return self.wait(0)
    return None

  def send_signal(self, number):
    """Unless it is known to have ended."""
    if self.poll() is None:
      os.kill(self.pid, number)

  def kill(self):
    self.send_signal(signal.SIGKILL)

  def communicate(self, request=None, timeout=None):
    """Writes to it, and reads until it ends: what it printed, on both streams.

    Raises:
      subprocess.TimeoutExpired: it runs on.
    """
    said = {}

    def read(stream):
      if not stream.closed:
        with stream:
          said[stream] = stream.read()

    readers = [
      threading.Thread(target=read, args=(stream,), daemon=True)
      for stream in (self.stdout, self.stderr)
    ]
    for reader in readers:
      reader.start()
    if self.stdin and not self.stdin.closed:
      with contextlib.suppress(BrokenPipeError), self.stdin:
        self.stdin.write(request or '')
    self.wait(timeout)
    for reader in readers:
      reader.join(timeout)
    return said.get(self.stdout, ''), said.get(self.stderr, '')


class _Server:
  """The side of the tests."""

  def __init__(self):
    self.seconds = 0.0  # CPU time of the server and of the forks that ended.
    self._control, theirs = socket.socketpair(
      socket.AF_UNIX, socket.SOCK_SEQPACKET
    )
    with theirs:
      self._process = subprocess.Popen(
        [sys.executable, '-m', __name__, str(theirs.fileno())],
        cwd=pathlib.Path(__file__).parents[2],
        # The threads of OpenBLAS would be lost in a fork.
        env={**os.environ, 'OPENBLAS_NUM_THREADS': '1'},
        pass_fds=(theirs.fileno(),),
      )

  def fork(self, arguments, folder, environment, stdin, native):
    pipes = [os.pipe() for _ in range(4)]
    (stdin_r, stdin_w), (out_r, out_w), (err_r, err_w), (end_r, end_w) = pipes
    given = [stdin_r, out_w, err_w, end_w]
    request = json.dumps([arguments, str(folder), environment]).encode()
    socket.send_fds(self._control, [request], [*given, native])
    for descriptor in given:
      os.close(descriptor)
    ended = os.fdopen(end_r)
    pid = int(ended.readline())
    if not stdin:
      os.close(stdin_w)
    kept = (
      os.fdopen(stdin_w, 'w') if stdin else None,
      os.fdopen(out_r),
      os.fdopen(err_r),
    )
    return Forked(self, pid, kept, ended)

  def stop(self):
    """Ends it: its CPU time is then that of a child of ours."""
    self._control.close()
    self._process.wait()
    self.seconds = 0.0


@functools.cache
def _server():
  server = _Server()
  atexit.register(stop)
  return server


def start(arguments, folder, environment, *, stdin, native):
  """A process of `tests.support.streams` with these arguments.

  Args:
    arguments: of `streams`, behind the descriptor.
    folder: its working folder.
    environment: all of it.
    stdin: whether it is written to; else its standard input is at its end.
    native: descriptor of the file for what native libraries write.

  Returns:
    A `Forked`.
  """
  return _server().fork(arguments, folder, environment, stdin, native)


def cpu_seconds():
  """CPU-seconds of the server and of the forks that were waited for."""
  return _server().seconds if _server.cache_info().currsize else 0.0


def stop():
  """Ends the server, if there is one."""
  if _server.cache_info().currsize:
    _server().stop()
    _server.cache_clear()


def _own_seconds():
  spent = os.times()
  return spent.user + spent.system + spent.children_user + spent.children_system


def _serve(control):
  """Forks until nobody asks any more.

  Returns:
    In a fork: its request and its descriptors. In the server, None.
  """
  running = {}
  while True:
    if select.select([control], [], [], _LOOK_S if running else None)[0]:
      text, given, *_ = socket.recv_fds(control, _LARGEST, 5)
      if not text:
        break
      pid = os.fork()
      if not pid:
        for descriptor in running.values():
          os.close(descriptor)
        return json.loads(text), given
      *others, running[pid], native = given
      os.write(running[pid], f'{pid}\n'.encode())
      for descriptor in (*others, native):
        os.close(descriptor)
    while running:
      pid, status = os.waitpid(-1, os.WNOHANG)
      if not pid:
        break
      end = running.pop(pid)
      with contextlib.suppress(BrokenPipeError):
        os.write(end, f'{json.dumps([status, _own_seconds()])}\n'.encode())
      os.close(end)
  for pid in running:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
  return None


def _become(request, given):
  """Gives a fork what a process that is started has; its arguments."""
  import jax

  arguments, folder, environment = request
  *standard, end, native = given
  os.close(end)
  for number, descriptor in enumerate(standard):
    os.dup2(descriptor, number)
    os.close(descriptor)
  sys.stdin = open(0, closefd=False)
  os.chdir(folder)
  for name, text in environment.items():
    key = name.lower()
    if key in jax.config.values and text != os.environ.get(name):
      now = jax.config.values[key]
      value = text in ('1', 'true') if isinstance(now, bool) else text
      jax.config.update(key, value if now is None else type(now)(value))
  os.environ.clear()
  os.environ.update(environment)
  sys.path[:0] = filter(None, environment.get('PYTHONPATH', '').split(':'))
  return [str(native), *arguments]


def main():
  """Imports, and forks; what is asked for runs in the forks."""
  # Not in the tests, whose time is counted before they import JAX.
  from tests.support import compilation, streams

  for name in _PRELOADED:
    importlib.import_module(name)
  compilation.write_whole_files()
  gc.collect()
  gc.freeze()
  with socket.socket(fileno=int(sys.argv[1])) as control:
    task = _serve(control)
  if task:
    sys.argv = ['streams', *_become(*task)]
    streams.main()


if __name__ == '__main__':
  main()
