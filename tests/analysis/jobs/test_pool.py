import os
import signal
import threading
import time

import pytest

from dppo_jax.analysis.jobs import pool
from dppo_jax.analysis.jobs.job import Job

# Real processes and signals: a rare race is shown as a rerun.
pytestmark = pytest.mark.flaky(reruns=1)


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
  monkeypatch.setattr(pool, 'WORKER', 'tests.support.fake_worker')


def _job(what, seed=0):
  config = {'what': what, 'seed': seed, 'trust_region': {'rule': 'none'}}
  return Job(name=what, config=config)


def _run(jobs, root, **options):
  lines = []
  return pool.run_jobs(jobs, root, show=lines.append, **options), lines


def _attempts(outcome):
  return (outcome.folder / 'attempts').read_text().split()


def test_outcomes_come_in_the_order_of_the_jobs(tmp_path):
  jobs = [_job('fine', seed) for seed in range(3)]
  outcomes, lines = _run(jobs, tmp_path)
  assert [o.job for o in outcomes] == jobs
  assert [o.error for o in outcomes] == ['', '', '']
  assert outcomes[0].wall_s == 1.0
  # One process ran all of them.
  assert len({_attempts(o)[0] for o in outcomes}) == 1
  assert lines[0].startswith('3 runs to do, 0 finished before')
  assert lines[-1].startswith('[3/3] fine, seed 2: finished')


def test_a_failure_and_a_death_take_no_other_job(tmp_path):
  jobs = [_job('bad'), _job('dies'), _job('fine')]
  outcomes, _ = _run(jobs, tmp_path)
  assert [o.error for o in outcomes] == [
    'ValueError: it is bad',
    'its process ended with exit code 3',
    '',
  ]


def test_finished_jobs_are_not_run_again_and_failed_ones_are(tmp_path):
  jobs = [_job('fine'), _job('bad')]
  _run(jobs, tmp_path)
  outcomes, lines = _run(jobs, tmp_path)
  assert [len(_attempts(o)) for o in outcomes] == [1, 2]
  assert lines[0].startswith('1 runs to do, 1 finished before')


def test_equal_jobs_run_once(tmp_path):
  jobs = [_job('fine'), _job('fine')]
  outcomes, lines = _run(jobs, tmp_path)
  assert lines[0].startswith('1 runs to do')
  assert outcomes[0].folder == outcomes[1].folder
  assert len(_attempts(outcomes[1])) == 1


def test_several_processes_share_the_work(tmp_path):
  jobs = [_job('fine', seed) for seed in range(6)]
  outcomes, _ = _run(jobs, tmp_path, parallel=2)
  assert all(not o.error and len(_attempts(o)) == 1 for o in outcomes)


def test_no_processes_is_an_error(tmp_path):
  with pytest.raises(ValueError, match=r'^--parallel: got 0'):
    _run([_job('fine')], tmp_path, parallel=0)


def test_sigterm_ends_the_process_and_keeps_what_is_done(tmp_path):
  jobs = [_job('fine'), _job('waits'), _job('fine', 1)]
  handler = signal.getsignal(signal.SIGTERM)

  def interrupt():
    while not list(tmp_path.glob('*/waiting')):
      time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=interrupt).start()
  with pytest.raises(KeyboardInterrupt):
    _run(jobs, tmp_path)
  assert signal.getsignal(signal.SIGTERM) == handler
  assert len(list(tmp_path.glob('*/job.json'))) == 1
  (waiting,) = (
    int(folder.joinpath('attempts').read_text())
    for folder in tmp_path.iterdir()
    if not (folder / 'job.json').exists()
  )
  with pytest.raises(ProcessLookupError):  # It was waited for.
    os.kill(waiting, 0)


def test_what_is_under_way_is_told(tmp_path, monkeypatch):
  monkeypatch.setattr(pool, '_EVERY_S', 0.01)
  told = threading.Event()
  lines = []

  def show(line):
    lines.append(line)
    if line.startswith('  waits, seed 0: '):
      told.set()

  def interrupt():
    told.wait()
    os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=interrupt).start()
  with pytest.raises(KeyboardInterrupt):
    pool.run_jobs([_job('waits')], tmp_path, show=show)
  assert any(line.endswith(' s, starting') for line in lines)


def test_the_last_line_of_a_log_is_shown(tmp_path):
  (tmp_path / 'log.txt').write_text('x' * 5000 + '\ncompiling é …\n\n')
  job = Job(name='a', config={'seed': 3})
  assert pool._under_way(job, tmp_path, 21.2) == (
    '  a, seed 3: 21 s, compiling é …'
  )
