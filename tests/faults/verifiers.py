"""Hostile verifiers, and what is done to workers, tried on a real pool.

python -m tests.faults.verifiers

A trial is right if the batch ends within `LIMIT_S`, the item at fault gets
reward 0 (or its verdict, where it may have one), every other item its own
verdict, and no process of it lives on. Outside CI, whose short form is
tests/faults/test_verifiers.py.
"""

from collections.abc import Callable
import os
import pathlib
import signal
import sys
import tempfile
import textwrap
import threading
import time

from dppo_jax.rewards.pool import VerifierPool

LIMIT_S = 120.0  # Seconds of wall time per trial, against hangs.
_FAILED = ('crashed', 'timeout', 'memory', 'error')
_MODULE = 'hostile_verifiers'
_SOURCE = """
  import contextlib, os, resource, signal, sys, threading, time

  def everywhere(data):
    for descriptor in range(3, 20):
      with contextlib.suppress(OSError):
        os.write(descriptor, data)

  def forever(function):
    while True:
      function()

  class Odd(float):
    def __float__(self):
      raise SystemExit(3)

  class Text:
    def __str__(self):
      return 'x' * 10**7

  def child(leave):
    pid = os.fork()
    if not pid:
      if leave:
        os.setsid()
      time.sleep(600)
    return pid

  KINDS = {
    'computes': lambda: forever(lambda: None),
    'catches all': lambda: catches_all(),
    'raises': lambda: 1 / 0,
    'exits': lambda: sys.exit(0),
    'exits at once': lambda: os._exit(0),
    'kills itself': lambda: os.kill(os.getpid(), signal.SIGKILL),
    'stops itself': lambda: os.kill(os.getpid(), signal.SIGSTOP),
    'sleeps': lambda: time.sleep(600),
    'recurses': lambda: KINDS['recurses'](),
    'allocates': lambda: bytearray(2**40),
    'hoards': lambda: [bytearray(2**26) for _ in range(999)],
    'floods its pipe': lambda: forever(lambda: everywhere(b'x' * 2**16)),
    'nests': lambda: everywhere(b'[' * 10**5 + b'\\n'),
    'forges': lambda: everywhere(b'[0, [[1.0, "forged"]]]\\n'),
    'forges null': lambda: everywhere(b'null\\n'),
    'floods by lines': lambda: forever(lambda: everywhere(b'true\\n' * 999)),
    'closes all': lambda: os.closerange(0, 99) or time.sleep(600),
    'ignores signals': lambda: ignores_signals(),
    'returns none': lambda: None,
    'returns nan': lambda: (float('nan'), 'x'),
    'returns text': lambda: ('1', 'x'),
    'returns an odd number': lambda: (Odd(1), 'x'),
    'returns a tuple of three': lambda: (1.0, 'x', 2),
    'prints': lambda: print('x' * 2**22) or (1.0, 'right'),
    'says much': lambda: (1.0, Text()),
    'half a character': lambda: (1.0, chr(0xD800)),
    'forks': lambda: os.fork() and (1.0, 'right') or (1.0, 'right'),
    'leaves a child': lambda: child(False) and (1.0, 'right'),
    'leaves a child outside': lambda: child(True) and (1.0, 'right'),
    'leaves a thread': lambda: threading.Thread(
      target=forever, args=(lambda: time.sleep(0.1),), daemon=True
    ).start() or (1.0, 'right'),
  }

  def catches_all():
    while True:
      try:
        forever(lambda: None)
      except BaseException:
        continue

  def ignores_signals():
    for number in (signal.SIGTERM, signal.SIGPROF, signal.SIGALRM):
      signal.signal(number, signal.SIG_IGN)
    forever(lambda: None)

  def act(completion, example, truncated):
    return KINDS[completion]() if completion in KINDS else (1.0, completion)
"""


def _names() -> tuple[str, ...]:
  lines = textwrap.dedent(_SOURCE).splitlines()
  return tuple(line.split("'")[1] for line in lines if line.startswith("  '"))


# By what a verifier does: the reasons that the item may get.
HOSTILE = _names()
_MAY_BE_RIGHT = (
  'prints',
  'says much',
  'half a character',
  'forks',
  'leaves a child',
  'leaves a child outside',
  'leaves a thread',
)


def write_module(folder: pathlib.Path) -> None:
  """Writes the verifiers where workers of this process find them."""
  (folder / f'{_MODULE}.py').write_text(textwrap.dedent(_SOURCE))
  if str(folder) not in sys.path:
    sys.path.insert(0, str(folder))


def make_pool() -> VerifierPool:
  """A pool of one worker, so that innocent items wait behind the hostile."""
  return VerifierPool(f'{_MODULE}:act', 'boxed', 1, 0.5, 512, 4.0)


def _verify(pool: VerifierPool, texts: list[str]) -> list[tuple[float, str]]:
  examples = [{'answer': ''}] * len(texts)
  return [
    (v.reward, v.reason)
    for v in pool.verify(texts, examples, [False] * len(texts))
  ]


def hostile(pool: VerifierPool, name: str) -> str:
  """What is wrong with a batch that holds one hostile item; '' if nothing."""
  start = time.monotonic()
  first, found, *rest = _verify(pool, ['a', name, 'b', 'c'])
  took = time.monotonic() - start
  if [first, *rest] != [(1.0, 'a'), (1.0, 'b'), (1.0, 'c')]:
    return f'innocent items got {[first, *rest]}'
  right = found[0] == 1.0 and name in _MAY_BE_RIGHT
  if not right and (found[0] != 0.0 or not found[1].startswith(_FAILED)):
    return f'it got {found}'
  if len(found[1]) > 200:
    return f'its reason has {len(found[1])} characters'
  return f'it took {took:.0f} s' if took > LIMIT_S else ''


def _signal_idle(pool: VerifierPool, number: signal.Signals) -> str:
  for worker in pool._workers:
    os.kill(worker.process.pid, number)
  found = _verify(pool, ['a'] * 8)
  return '' if found == [(1.0, 'a')] * 8 else f'got {found}'


def _signal_busy(pool: VerifierPool, number: signal.Signals) -> str:
  """One item at most may be charged: the one that the worker was at."""
  (pid,) = [worker.process.pid for worker in pool._workers]
  timer = threading.Timer(0.05, os.kill, (pid, number))
  timer.start()
  found = _verify(pool, ['a'] * 3000)
  timer.join()
  charged = [each for each in found if each != (1.0, 'a')]
  return '' if len(charged) <= 1 else f'{len(charged)} charged: {charged[:3]}'


OUTSIDE: dict[str, Callable[[VerifierPool], str]] = {
  f'{number.name} while {what}': (
    lambda pool, run=run, number=number: run(pool, number)
  )
  for what, run in (('idle', _signal_idle), ('busy', _signal_busy))
  for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT)
}


def living(folder: pathlib.Path) -> list[int]:
  """Processes with this folder in their PYTHONPATH, this one left out."""
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      state = (path / 'stat').read_text().rpartition(')')[2].split()[0]
      ours = str(folder).encode() in (path / 'environ').read_bytes()
    except OSError:
      continue
    if ours and state != 'Z':
      found.append(int(path.name))
  return found


def trial(name: str) -> str:
  """What is wrong with one trial; '' if nothing."""
  with make_pool() as pool:
    return OUTSIDE[name](pool) if name in OUTSIDE else hostile(pool, name)


def main() -> int:
  """Returns 1 where a trial was wrong."""
  right = 0
  names = (*HOSTILE, *OUTSIDE)
  with tempfile.TemporaryDirectory() as base:
    write_module(pathlib.Path(base))
    for name in names:
      start = time.monotonic()
      wrong = trial(name)
      until = time.monotonic() + 5.0  # The end of a process takes a moment.
      while not wrong and living(pathlib.Path(base)):
        time.sleep(0.02)
        if time.monotonic() > until:
          wrong = f'{len(living(pathlib.Path(base)))} processes live on'
      right += not wrong
      took = time.monotonic() - start
      print(f'{"WRONG" if wrong else "right"}  {name} ({took:.1f} s)  {wrong}')
  print(f'hostile verifiers: {right} right of {len(names)}')
  return int(right < len(names))


if __name__ == '__main__':
  raise SystemExit(main())
