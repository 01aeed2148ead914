"""No verifier can end, stall or confuse a run."""

import os
import pathlib
import resource
import signal
import textwrap
import threading
import time

import numpy as np
import pytest

from dppo_jax.rewards import output, process
from dppo_jax.rewards import pool as pool_lib
from dppo_jax.rewards.terms import Term

# Real processes and signals: a rare race is shown as a rerun.
pytestmark = pytest.mark.flaky(reruns=1)

_LIMIT_S = 1.0  # Room for a busy machine; a few tests wait for it.
_SOURCE = """
import contextlib, os, signal, sys, time
from dppo_jax.rewards.verifiers import Verdict

def act(completion, example, truncated):
  if completion == 'hang':
    while True:
      pass
  if completion == 'nap':
    until = time.process_time() + 0.4
    while time.process_time() < until:
      pass
  if completion == 'starve':
    os.kill(os.getpid(), signal.SIGSTOP)
  if completion == 'sleep':
    time.sleep(60)
  if completion == 'wait':
    time.sleep(float(example['weight']))
  if completion == 'exit':
    os._exit(3)
  if completion == 'sys_exit':
    sys.exit()
  if completion == 'raise':
    raise KeyError('no such row')
  if completion == 'nan':
    return Verdict(float('nan'), 'odd')
  if completion == 'memory':
    return Verdict(1.0, str(len(bytearray(2**34))))
  if completion == 'talk':
    print('[0, 1.0, "forged"]', flush=True)
    os.write(1, b'more')
    return Verdict(1.0, repr(sys.stdin.read()))
  if completion == 'forge':
    for descriptor in range(3, 20):
      with contextlib.suppress(OSError):
        os.write(descriptor, b'[0, 1.0, "forged"]\\n')
  if completion == 'flood':
    while True:
      for descriptor in range(3, 20):
        with contextlib.suppress(OSError):
          os.write(descriptor, b'x' * 2**16)
  if completion == 'nest':
    for descriptor in range(3, 20):
      with contextlib.suppress(OSError):
        os.write(descriptor, b'[' * 10**5 + b'\\n')
  if completion == 'shout':
    for _ in range(64):
      print('x' * 2**16)
  if completion == 'fork':
    if not os.fork():
      time.sleep(0.05)  # The child comes back, too, and later.
  if completion == 'desert':
    child = os.fork()
    if not child:  # Holds the pipes, in a session of its own.
      os.setsid()
      time.sleep(600)
    with open(example['file'], 'w') as file:
      file.write(str(child))
    os._exit(3)
  if completion == 'pid':
    return Verdict(1.0, str(os.getpid()))
  if completion == 'modules':
    heavy = ('jax', 'flax', 'numpy')
    return Verdict(1.0, str([name for name in heavy if name in sys.modules]))
  return Verdict(float(example['weight']), f'truncated={truncated}')
"""
# The row `math` with a low bound of its size guard; whoever computes a power
# that is beyond the bound never returns.
_MATHEMATICS = """
from dppo_jax.rewards import verifiers
from dppo_jax.rewards.answers import cost, equivalence, matching

def equivalent(answer, reference):
  while '^' in answer and '10' in answer:
    pass
  return equivalence.equivalent(answer, reference)

def ask():
  return matching.Questions(equivalent, equivalence.same_relation)

cost.MAX_BITS = 8.0
verifiers._ask = ask
math = verifiers.make_verifier(verifiers.VERIFIERS['math'], ('boxed',))
"""


def _pool(
  verifier='exact_match',
  num_workers=0,
  time_limit_s=1.0,
  memory_limit_mb=4096,
  extraction='whole',
  wall_limit_s=60.0,
):
  return pool_lib.VerifierPool(
    verifier,
    extraction,
    num_workers,
    time_limit_s,
    memory_limit_mb,
    wall_limit_s,
  )


@pytest.fixture(scope='module')
def import_path(tmp_path_factory):
  folder = tmp_path_factory.mktemp('verifier')
  (folder / 'house_of_horrors.py').write_text(textwrap.dedent(_SOURCE))
  (folder / 'small_mathematics.py').write_text(_MATHEMATICS)
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(folder)
    yield folder


@pytest.fixture(scope='module')
def act(import_path):
  with _pool('house_of_horrors:act', 2, _LIMIT_S) as pool:

    def verify(completions):
      examples = [{'weight': i} for i in range(len(completions))]
      flags = np.arange(len(completions)) % 2 == 1
      return pool.verify(completions, examples, flags)

    verify.pool = pool
    yield verify


def _fine(i):
  return (float(i), f'truncated={i % 2 == 1}')


def test_verdicts_come_in_order(act):
  assert act(['a'] * 100) == [_fine(i) for i in range(100)]
  assert act([]) == []


@pytest.mark.parametrize(
  ('completion', 'reason'),
  [
    ('exit', 'crashed'),
    ('sys_exit', 'crashed'),
    ('hang', 'timeout'),
    ('raise', "error: KeyError: 'no such row'"),
    ('nan', 'error: reward nan is not finite'),
    ('memory', 'memory'),
  ],
)
def test_a_failure_costs_its_own_item_only(act, completion, reason):
  completions = ['a'] * 40
  failing = {0, 5, 6, 39}
  if completion == 'hang':
    failing = {6}
  for i in failing:
    completions[i] = completion
  verdicts = act(completions)
  for i, verdict in enumerate(verdicts):
    assert verdict == ((0.0, reason) if i in failing else _fine(i))
  assert act(['a'] * 3) == [_fine(i) for i in range(3)]


def test_the_limit_is_one_items(act):
  # One worker naps through all of this chunk, longer than one item may.
  assert pool_lib.CHUNK_SIZE > 3
  completions = ['nap'] * 3 + ['a'] * 21  # Chunks of three, at first.
  assert act(completions) == [_fine(i) for i in range(24)]


def test_idle_workers_are_never_late(act):
  act(['a'] * 40)
  workers = list(act.pool._workers)
  time.sleep(1.2 * _LIMIT_S)
  act(['nap'])
  assert act.pool._workers == workers


def test_hanging_items_wait_side_by_side(act, monkeypatch):
  pending = []

  def record(self, worker, remove=pool_lib.VerifierPool._remove):
    pending.append([w.pending[0] for w in self._workers if w.pending])
    remove(self, worker)

  monkeypatch.setattr(pool_lib.VerifierPool, '_remove', record)
  completions = ['hang', *['a'] * 15, 'hang']
  verdicts = act(completions)
  assert [v.reason for v in verdicts].count('timeout') == 2
  assert sorted(pending[0]) == [0, 16]  # When the first of them was ended.


def test_a_verifier_that_merely_waits_is_ended_by_the_clock(import_path):
  verifier = 'house_of_horrors:act'
  with _pool(verifier, 1, 0.2, wall_limit_s=0.8) as pool:
    examples = [{'weight': 0.4}] * 4
    texts = ['wait', 'wait', 'sleep', 'a']
    verdicts = pool.verify(texts, examples, [False] * 4)
  reasons = [verdict.reason for verdict in verdicts]
  fine = 'truncated=False'
  assert reasons == [fine, fine, 'timeout', fine]


def test_a_busy_host_costs_no_honest_answer(import_path):
  """A worker that gets no CPU for twice its limit, in the midst of an item."""
  limit_s = 0.5
  with _pool('house_of_horrors:act', 1, limit_s) as pool:
    (worker,) = pool._workers
    stopped_s = []

    def starve():
      how = os.WSTOPPED | os.WNOWAIT
      os.waitid(os.P_PID, worker.process.pid, how)  # By itself, see 'starve'.
      start = time.monotonic()
      time.sleep(2 * limit_s)
      stopped_s.append(time.monotonic() - start)
      os.kill(worker.process.pid, signal.SIGCONT)

    thread = threading.Thread(target=starve)
    thread.start()
    verdicts = pool.verify(['starve'], [{'weight': 1}], [False])
    thread.join()
  assert [verdict.reason for verdict in verdicts] == ['truncated=False']
  assert stopped_s[0] > limit_s  # By the clock it was too late.


def test_output_of_a_verifier_is_not_a_verdict(act):
  assert act(['talk', 'a'])[0] == (1.0, "''")
  assert act(['talk', 'a'])[1] == _fine(1)


def test_forged_replies_count_as_a_crash(act):
  verdicts = act(['a', 'forge', 'a'])
  assert verdicts[0] == _fine(0)
  assert verdicts[1] == (0.0, 'crashed')
  assert verdicts[2] == _fine(2)


def test_workers_are_other_processes_and_light(act):
  pids = {int(v.reason) for v in act(['pid'] * 64)}
  assert os.getpid() not in pids
  assert len(pids) <= 8  # Two, and spares for late ones on a busy machine.
  assert act(['modules'])[0].reason == '[]'


def test_a_worker_that_died_idle_is_replaced(act):
  for worker in act.pool._workers:
    os.kill(worker.process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, worker.process.pid, os.WEXITED | os.WNOWAIT)
  assert act(['a'] * 40) == [_fine(i) for i in range(40)]


def test_a_worker_killed_before_it_begins_costs_no_answer(act, monkeypatch):
  monkeypatch.setattr(process.WorkerProcess, 'has_ended', lambda self: False)
  for worker in act.pool._workers:
    os.kill(worker.process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, worker.process.pid, os.WEXITED | os.WNOWAIT)
  assert act(['a'] * 40) == [_fine(i) for i in range(40)]


def test_a_stopped_worker_hangs_nothing_and_costs_no_answer():
  text = 'a' * 2**20  # More than its pipe takes.
  with _pool('exact_match', 1, 10.0) as pool:
    (worker,) = pool._workers
    worker._wall_limit_s = 0.1
    os.kill(worker.process.pid, signal.SIGSTOP)
    verdicts = pool.verify([text] * 3, [{'answer': text}] * 3, [False] * 3)
    assert worker not in pool._workers
  assert verdicts == [(1.0, 'right')] * 3


def test_workers_that_never_begin_cannot_go_on_for_ever(monkeypatch):
  def send(self, indices, items):
    self.pending.extend(indices)
    self.process.kill()

  monkeypatch.setattr(process.WorkerProcess, 'send', send)
  monkeypatch.setattr(pool_lib, '_MAX_LOST', 1)
  with _pool('exact_match', 1, 1.0) as pool:
    verdicts = pool.verify(['a'] * 2, [{'answer': 'a'}] * 2, [False] * 2)
  assert verdicts == [(0.0, 'crashed')] * 2


@pytest.mark.parametrize('completion', ['flood', 'nest'])
def test_a_worker_that_floods_its_pipe_is_ended(act, completion):
  verdicts = act(['a', completion, 'a'])
  # Its own CPU time may be over before the limit of a line is.
  assert verdicts[1] in [(0.0, 'crashed'), (0.0, 'timeout')]
  assert [verdicts[0], verdicts[2]] == [_fine(0), _fine(2)]


def test_a_fork_answers_once(act):
  assert act(['fork', 'a', 'fork', 'a']) == [_fine(i) for i in range(4)]


def test_output_is_capped_and_costs_no_answer(act, capsys, monkeypatch):
  monkeypatch.setattr(act.pool, '_output', output.CappedOutput())
  assert act(['shout'] * 3) == [_fine(i) for i in range(3)]
  said = capsys.readouterr().err
  assert said.endswith('it has printed 256 KiB; more is dropped.\n')
  assert said.count('x') == output.MAX_OUTPUT - said.count('\nx')
  monkeypatch.setattr(output.sys, 'stderr', None)
  assert act(['shout', 'a']) == [_fine(0), _fine(1)]


def _lives(pid):
  try:
    status = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except OSError:
    return False
  return status.rpartition(')')[2].split()[0] != 'Z'


def test_children_of_a_verifier_end_with_it_and_keep_nobody_waiting(
  import_path, tmp_path
):
  example = {'weight': 1, 'file': str(tmp_path / 'pid')}
  with _pool('house_of_horrors:act', 1, _LIMIT_S, wall_limit_s=600.0) as pool:
    verdicts = pool.verify(['desert', 'a'], [example] * 2, [False] * 2)
    child = int((tmp_path / 'pid').read_text())
    while _lives(child):  # Killed; its end may take a moment.
      time.sleep(0.01)
  assert [v.reason for v in verdicts] == ['crashed', 'truncated=False']


def test_an_interrupted_batch_leaves_nothing_behind(act, monkeypatch):
  def interrupt(self, *_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(pool_lib.VerifierPool, '_wait', interrupt)
    with pytest.raises(KeyboardInterrupt):
      act(['a'] * 20)
  assert act(['a', 'a']) == [_fine(0), _fine(1)]


def test_a_verifier_that_no_longer_imports_ends_no_run(tmp_path, monkeypatch):
  module = tmp_path / 'vanishing_verifier.py'
  module.write_text('import os\ndef verify(*_):\n  os._exit(1)\n')
  monkeypatch.syspath_prepend(tmp_path)
  with _pool('vanishing_verifier:verify', 1, 5.0) as pool:
    module.unlink()
    verdicts = pool.verify(['a'] * 3, [{}] * 3, [False] * 3)
  assert verdicts == [(0.0, 'crashed')] * 3


def test_the_current_folder_hides_no_module(tmp_path, monkeypatch):
  (tmp_path / 'json.py').write_text('raise ImportError\n')
  monkeypatch.chdir(tmp_path)
  with _pool('exact_match', 1, 5.0) as pool:
    verdicts = pool.verify(['a'], [{'answer': 'a'}], [False])
  assert verdicts == [(1.0, 'right')]


def test_large_items_pass_through_the_pipe():
  text = 'é' * 200_000
  examples = [{'answer': text}] * 20
  with _pool('exact_match', 1, 10.0) as pool:
    verdicts = pool.verify([text] * 20, examples, [False] * 20)
  assert verdicts == [(1.0, 'right')] * 20


@pytest.mark.parametrize('num_workers', [0, 1])
def test_built_in_verifiers_run_anywhere(num_workers):
  examples = [{'answer': 'a', 'example_id': np.int32(1)}] * 3
  with _pool('exact_match', num_workers, 5.0) as pool:
    verdicts = pool.verify(['a', 'b', 'a'], examples, [False, False, True])
  assert [v.reason for v in verdicts] == ['right', 'wrong', 'truncated']
  assert [v.reward for v in verdicts] == [1.0, 0.0, 0.0]


def test_errors_in_process_are_verdicts():
  with _pool('exact_match', 0, 1.0) as pool:
    verdicts = pool.verify(['a', 'a'], [{}, {'answer': 'a'}], [False, False])
  assert verdicts == [(0.0, "error: KeyError: 'answer'"), (1.0, 'right')]


def test_a_function_is_found_by_its_name(import_path):
  import house_of_horrors

  with _pool(house_of_horrors.act, 1, 5.0) as pool:
    assert pool.verify(['a'], [{'weight': 2}], [True]) == [
      (2.0, 'truncated=True')
    ]


@pytest.mark.parametrize(
  ('changes', 'match'),
  [
    ({'verifier': 'exact_mach'}, r"rewards\.verifier: .*'exact_match'\?"),
    ({'verifier': 'zzz'}, r'Known: alias_sort, countdown'),
    ({'verifier': 'zzz:'}, r'rewards\.verifier: unknown'),
    ({'verifier': '0.1 x * numeric'}, r'rewards\.verifier: got the weight'),
    ({'verifier': 'json:dumps'}, r'rewards\.num_workers: got 0 .*at least 1'),
    ({'verifier': 'math'}, r'rewards\.num_workers: got 0 .*may hang'),
    ({'extraction': 'boxd'}, r'rewards\.extraction: unknown .boxd. .*hashes'),
    ({'memory_limit_mb': 64}, r'rewards\.memory_limit_mb: got 64'),
    ({'num_workers': -1}, r'rewards\.num_workers: got -1'),
    ({'time_limit_s': 0.0}, r'rewards\.time_limit_s: got 0\.0'),
    ({'time_limit_s': float('inf')}, r'rewards\.time_limit_s: got inf'),
    ({'time_limit_s': 90.0}, r'rewards\.wall_limit_s: got 60\.0; .* at least'),
    ({'verifier': lambda *_: None}, r'rewards\.verifier: .*cannot be imported'),
    (
      {'verifier': 'no_such_module_anywhere:f', 'num_workers': 1},
      r'rewards\.verifier: cannot import .*ModuleNotFoundError',
    ),
  ],
)
def test_bad_settings_are_refused(changes, match):
  with pytest.raises(ValueError, match=match):
    _pool(**changes)


def test_a_verifier_whose_import_exits_is_refused(tmp_path, monkeypatch):
  (tmp_path / 'exiting_verifier.py').write_text('import os\nos._exit(0)\n')
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(ValueError, match=r'rewards\.verifier: .*\(crashed\)'):
    _pool('exiting_verifier:verify', num_workers=1)


def test_a_verifier_whose_import_hangs_is_refused(tmp_path, monkeypatch):
  (tmp_path / 'slow_verifier.py').write_text('import time\ntime.sleep(60)\n')
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(process, 'START_LIMIT_S', 0.3)
  with pytest.raises(ValueError, match=r'rewards\.verifier: .*\(timeout\)'):
    _pool('slow_verifier:verify', num_workers=1)


def test_lengths_must_agree():
  with (
    _pool() as pool,
    pytest.raises(ValueError, match='2 completions, 1 examples and 1'),
  ):
    pool.verify(['a', 'b'], [{}], [False])


def test_a_closed_pool_says_so_and_leaves_no_process():
  pool = _pool(num_workers=2)
  processes = [worker.process for worker in pool._workers]
  pool.close()
  assert len(processes) == 2
  assert all(process.returncode is not None for process in processes)
  with pytest.raises(ValueError, match='closed'):
    pool.verify([], [], [])


def test_terms_are_weighed_and_the_first_gives_the_reason(import_path):
  example = {'answer': '7', 'weight': 3}
  texts = ['\\boxed{7}', '\\boxed{8}', '7']
  spec = 'numeric + 0.5 * one_boxed + -2*house_of_horrors:act'
  with _pool(spec, 1, 5.0, extraction='boxed') as pool:
    found = pool.verify_terms(texts, [example] * 3, [False] * 3)
    verdicts = pool.verify(texts, [example] * 3, [False] * 3)
  assert pool.terms == (
    Term(1.0, 'numeric'),
    Term(0.5, 'one_boxed'),
    Term(-2.0, 'house_of_horrors:act'),
  )
  assert [v.reward for v in found[1]] == [1.0, 1.0, 0.0]
  assert [v.reason for v in found[2]] == ['truncated=False'] * 3
  assert verdicts == [
    (1.0 + 0.5 - 6.0, 'right'),
    (0.0 + 0.5 - 6.0, 'wrong'),
    (0.0 + 0.0 - 6.0, 'no_answer'),
  ]


def test_a_failure_is_one_of_all_terms(import_path):
  with _pool('house_of_horrors:act + exact_match', 1, 5.0) as pool:
    found = pool.verify_terms(['exit'], [{'answer': 'exit'}], [False])
  assert found == [[(0.0, 'crashed')], [(0.0, 'crashed')]]


def test_terms_run_in_process_too():
  with _pool('numeric + 0.5*one_boxed', extraction='boxed') as pool:
    verdicts = pool.verify(['\\boxed{7}'], [{'answer': '7'}], [False])
  assert verdicts == [(1.5, 'right')]


@pytest.fixture(scope='module')
def mathematics():
  with _pool('math', 2, _LIMIT_S, 1024, 'boxed') as pool:
    yield pool


_ROOT = '\\boxed{\\sqrt{3}}'


def test_formulas_are_compared_in_workers(mathematics):
  answers = [_ROOT] * 64
  examples = [{'answer': '3^{1/2}'}] * 64
  flags = [False] * 64
  assert mathematics.verify(answers, examples, flags) == [(1.0, 'right')] * 64
  answers[20] = '\\boxed{2^2^2}'
  verdicts = mathematics.verify(answers, examples, flags)
  assert verdicts[20] == (0.0, 'malformed')
  assert [v.reason for v in verdicts].count('right') == 63


def test_what_is_too_large_costs_its_own_reward_and_no_time(import_path):
  answers = [_ROOT] * 64
  answers[20] = '\\boxed{2^{10}}'
  examples = [{'answer': '3^{1/2}'}] * 64
  with _pool('small_mathematics:math', 1, _LIMIT_S, 1024) as pool:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    verdicts = pool.verify(answers, examples, [False] * 64)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
  assert verdicts[20] == (0.0, 'malformed')
  assert [v.reason for v in verdicts].count('right') == 63
  # Refused by its size: no child ran into its limit.
  spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
  assert spent < _LIMIT_S


def test_the_one_to_follow_is_ready_before_it_is_needed(
  import_path, monkeypatch
):
  with _pool('house_of_horrors:act', 1, _LIMIT_S) as pool:
    ready = []
    remove = pool._remove

    def record(worker):
      ready.append([other.ready for other in pool._workers if other != worker])
      remove(worker)

    monkeypatch.setattr(pool, '_remove', record)
    verdicts = pool.verify(['hang', 'a'], [{'weight': 1}] * 2, [False] * 2)
    assert ready == [[True]]
    assert [v.reason for v in verdicts] == ['timeout', 'truncated=False']
    assert len(pool._workers) == 1


def test_memory_is_limited_by_the_config(import_path):
  with _pool('house_of_horrors:act', 1, 5.0, 256) as pool:
    verdicts = pool.verify(['memory'], [{'weight': 1}], [False])
  assert verdicts == [(0.0, 'memory')]


def test_thousands_of_answers_take_a_moment(mathematics):
  """The bar is 2 s for 4,096 on two idle cores; this machine may be busy."""
  number = 4096
  filler = 'We add <<1+2=3>>3 and three more. ' * 20
  answers = [f'{filler}\\boxed{{{i:,}}}' for i in range(number)]
  examples = [
    {'answer': f'{filler}\n#### {i - i % 2}', 'prompt': filler}
    for i in range(number)
  ]
  mathematics.verify(answers[:64], examples[:64], [False] * 64)
  start = time.monotonic()
  verdicts = mathematics.verify(answers, examples, [False] * number)
  assert time.monotonic() - start < 2.0
  reasons = [verdict.reason for verdict in verdicts]
  assert reasons == ['right', 'wrong'] * (number // 2)
