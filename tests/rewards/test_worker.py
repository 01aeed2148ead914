"""The process side of the pool, without the process."""

import io
import json
import resource
import signal
import subprocess
import sys

import pytest

from dppo_jax.rewards import worker
from dppo_jax.rewards.verdicts import Verdict

# Real processes and signals: a rare race is shown as a rerun.
pytestmark = pytest.mark.flaky(reruns=1)


def _run(code):
  return subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    check=False,
    timeout=30,
    env={'PYTHONPATH': ':'.join(sys.path)},
  )


def test_every_item_of_every_chunk_is_answered_in_order():
  items = [[7, 'a', {'answer': 'a'}, False], [3, 'b', {'answer': 'a'}, False]]
  requests = [json.dumps(items) + '\n', json.dumps(items[:1]) + '\n']
  replies = io.StringIO()
  exact = worker.load_verifier('exact_match', ['whole'])
  worker.serve(
    requests, replies, [exact, lambda *_: Verdict(0.5, 'ok')], 1.0, 9.0
  )
  lines = [json.loads(line) for line in replies.getvalue().splitlines()]
  right, wrong, other = [1.0, 'right'], [0.0, 'wrong'], [0.5, 'ok']
  assert lines == [
    True,  # A chunk begins.
    [7, [right, other]],
    [3, [wrong, other]],
    True,
    [7, [right, other]],
  ]
  for timer in (signal.ITIMER_REAL, signal.ITIMER_PROF):
    assert signal.getitimer(timer) == (0.0, 0.0)


@pytest.mark.parametrize(
  ('act', 'wall_limit_s', 'ended_by'),
  [
    ('while True: pass', 20.0, signal.SIGPROF),
    ('return sum(range(10**12))', 20.0, signal.SIGPROF),  # One call into C.
    ('time.sleep(20)', 0.1, signal.SIGALRM),
  ],
)
def test_what_hangs_ends_itself_also_as_an_orphan(act, wall_limit_s, ended_by):
  done = _run(
    'import io, signal, time\n'
    'from dppo_jax.rewards import worker\n'
    'signal.signal(signal.SIGPROF, signal.SIG_IGN)\n'
    'signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPROF])\n'
    'worker.unblock_timers()\n'
    'worker._GRACE_S = 0.1\n'
    f'def hang(*_):\n  {act}\n'
    'chunk = ["[[0, 1, 2, 3]]"]\n'
    f'worker.serve(chunk, io.StringIO(), [hang], 0.1, {wall_limit_s})'
  )
  assert done.returncode == -ended_by


def test_only_cpu_time_counts_and_each_item_has_its_own():
  done = _run(
    'import io, time\n'
    'from dppo_jax.rewards import worker\n'
    'def work(*_):\n'
    '  time.sleep(0.3)\n'
    '  until = time.process_time() + 0.15\n'
    '  while time.process_time() < until: pass\n'
    '  return 1.0, "done"\n'
    'replies = io.StringIO()\n'
    'line = "[[0, 1, 2, 3], [1, 1, 2, 3]]"\n'
    'worker.serve([line], replies, [work], 0.25, 60.0)\n'
    'print(replies.getvalue().count("done"))'
  )
  assert (done.returncode, done.stdout.strip()) == (0, '2')


def test_verifiers_are_found_by_name():
  numeric = worker.load_verifier('numeric', ['boxed'])
  assert numeric('\\boxed{1.0}', {'answer': '1'}, False) == (1.0, 'right')
  name = 'tests.support.bad_verifiers:fails'
  mine = worker.load_verifier(name, ['boxed'])
  assert mine('', {'example_id': 9}, False) == (1.0, 'right')


def test_what_a_row_imports_is_there_before_the_first_item():
  done = _run(
    'import sys\n'
    'from dppo_jax.rewards import worker\n'
    'worker.load_verifier("math", ["boxed"])\n'
    'print("sympy" in sys.modules)'
  )
  assert done.stdout.strip() == 'True'


@pytest.mark.parametrize(
  'name',
  [
    'no_such_module_anywhere:verify',
    'dppo_jax.rewards.verifiers:no_such_function',
    'dppo_jax.rewards.verdicts:MAX_REASON_LENGTH',
    'dppo_jax.rewards.verifiers',
  ],
)
def test_verifiers_that_cannot_be_found_are_refused(name):
  with pytest.raises(ValueError, match=r'rewards\.verifier: .*' + name):
    worker.load_verifier(name, ['whole'])


def test_memory_is_limited():
  done = _run(
    'from dppo_jax.rewards import worker\n'
    f'worker.limit_memory({2**30})\n'
    'import resource\n'
    'print(resource.getrlimit(resource.RLIMIT_AS))\n'
    'try:\n'
    f'  bytearray({2**31})\n'
    'except MemoryError:\n'
    '  print("refused")'
  )
  assert done.stdout.split('\n')[:2] == [f'({2**30}, {2**30})', 'refused']


def test_a_limit_that_cannot_be_set_is_not_an_error(monkeypatch):
  def refuse(*_):
    raise ValueError

  monkeypatch.setattr(resource, 'setrlimit', refuse)
  worker.limit_memory(1)
