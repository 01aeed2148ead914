"""Forked processes have what started ones have."""

import json
import os
import signal
import subprocess

import pytest

from tests.support import fork_server, runs

_TELLS = """
import json, os, signal, sys, threading
import jax
print(json.dumps({
  'arguments': sys.argv,
  'environment': dict(os.environ),
  'folder': os.getcwd(),
  'limit': jax.config.jax_persistent_cache_min_compile_time_secs,
  'quick': jax.config.read('jax_disable_most_optimizations'),
  'devices': jax.device_count(),
  'input': sys.stdin.read(),
  'path': sys.path[0],
  'interrupt': signal.getsignal(signal.SIGINT) is signal.default_int_handler,
}))
print('first line', file=sys.stderr)
sys.exit(7)
"""


def test_a_fork_is_as_it_was_asked_for(tmp_path):
  environment = {
    **runs.devices(3),
    'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.25',
    'PYTHONPATH': str(tmp_path),
  }
  process = runs.start_code(_TELLS, 'a', 2, stdin=True, **environment)
  code, out, err = runs.end(process, 'read this')
  told = json.loads(out)
  assert (code, err) == (7, 'first line\n')
  assert told['environment'] == {**os.environ, **environment}
  assert told['folder'] == str(runs.ROOT)
  assert told['arguments'] == ['-c', 'a', '2']
  assert (told['limit'], told['quick'], told['devices']) == (0.25, True, 3)
  assert told['input'] == 'read this'
  assert told['path'] == str(tmp_path)
  assert told['interrupt']


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_a_fork_that_a_signal_ends(number):
  process = runs.start_code('import time; print(1, flush=True); time.sleep(99)')
  assert process.stdout.readline() == '1\n'
  assert process.poll() is None
  with pytest.raises(subprocess.TimeoutExpired):
    process.wait(0.01)
  process.send_signal(number)
  assert runs.end(process) == (-number, '', '')
  process.kill()  # It is known to have ended: nobody else's number.


def test_what_a_fork_raises_is_shown():
  code, out, err = runs.end(runs.start_code('print(1)\nraise ValueError("x")'))
  assert (code, out) == (1, '1\n')
  assert err.endswith('ValueError: x\n')


def test_the_time_of_forks_is_counted():
  before = fork_server.cpu_seconds()
  runs.said('import time\nwhile time.process_time() < 0.2: pass')
  assert 0.2 <= fork_server.cpu_seconds() - before < 2
