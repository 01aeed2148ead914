import io
import os
import sys

import pytest

from dppo_jax.runtime.reporting import console
from dppo_jax.runtime.reporting.console import SteadyStream, outlive_readers
from tests.support import runs


class _Broken(io.StringIO):
  def __init__(self, error, on_flush):
    super().__init__()
    self._error, self._on_flush = error, on_flush

  def write(self, text):
    if not self._on_flush:
      raise self._error
    return super().write(text)

  def flush(self):
    if self._on_flush:
      raise self._error


@pytest.mark.parametrize('on_flush', [False, True])
@pytest.mark.parametrize(
  'error',
  [
    BrokenPipeError('no reader'),
    OSError(5, 'the terminal is gone'),
    OSError(28, 'the disk is full'),
    ValueError('I/O operation on closed file'),
  ],
)
def test_a_failed_write_is_no_error(error, on_flush):
  stream = SteadyStream(_Broken(error, on_flush))
  for _ in range(2):
    print('a line', file=stream, flush=True)
  stream.writelines(['more'])


def test_every_write_is_heard():
  heard = []
  stream = SteadyStream(io.StringIO(), lambda: heard.append(1))
  stream.write('a line')
  stream.writelines(['more', 'still more'])
  assert len(heard) == 3


def test_what_stderr_shows_breaks_silence(monkeypatch):
  heard = []
  monkeypatch.setattr(console.activity, 'hear', lambda: heard.append(1))
  for name in ('stdout', 'stderr'):
    monkeypatch.setattr(sys, name, io.StringIO())
  outlive_readers()
  print('results, which may go to a file')
  assert not heard
  print('a line', file=sys.stderr)
  assert heard


def test_what_an_encoding_lacks_is_escaped():
  raw = io.BytesIO()
  stream = SteadyStream(io.TextIOWrapper(raw, encoding='ascii'))
  print('|π − μ|', file=stream, flush=True)
  assert raw.getvalue() == b'|\\u03c0 \\u2212 \\u03bc|\n'


def test_a_pipe_without_a_reader_becomes_nowhere():
  reader, writer = os.pipe()
  os.close(reader)
  with os.fdopen(writer, 'w') as pipe:  # What it buffers must not fail either.
    stream = SteadyStream(pipe)
    stream.write('lost')
    stream.flush()
    os.write(stream.fileno(), b'of a native library')
    assert not stream.isatty()


def test_the_streams_are_replaced_once(monkeypatch):
  monkeypatch.setattr(sys, 'stdout', io.StringIO())
  monkeypatch.setattr(sys, 'stderr', None)  # As without a console.
  outlive_readers()
  first = sys.stdout
  outlive_readers()
  assert sys.stdout is first
  assert sys.stderr is None
  assert isinstance(first, SteadyStream)


_WRITES_ON = """
import sys
from dppo_jax.runtime import cli
from absl import flags
def main():
  sys.stdin.readline()
  for _ in range(3):
    print('x' * 100_000, flush=True)
    print('y', file=sys.stderr, flush=True)
  return 7
cli.run(main)
"""


def test_a_command_outlives_who_reads_it():
  process = runs.start_code(_WRITES_ON, stdin=True)
  process.stdout.close()
  process.stderr.close()
  process.stdin.write('go\n')
  process.stdin.close()
  assert process.wait(runs.END_S) == 7
