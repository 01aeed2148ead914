import json
import shlex

import pytest

from dppo_jax.analysis.jobs import job as job_lib
from dppo_jax.analysis.sweeps import plan
from dppo_jax.runtime.storage import workdir
from tests.support import made_up_sweeps


def test_a_sweep_round_trips(tmp_path):
  sweep = made_up_sweeps.sweep(*made_up_sweeps.DELTAS)
  assert plan.write(tmp_path, sweep) == ''
  found = plan.read(tmp_path)
  assert list(found.variants) == list(sweep.variants)
  jobs = plan.jobs(sweep, made_up_sweeps.defaults())
  assert [job_lib.key(job, 'x') for job in jobs] == [
    job_lib.key(job, 'x') for job in plan.jobs(found, made_up_sweeps.defaults())
  ]
  assert [(job.seed, job.name) for job in jobs[3:5]] == [
    (0, 'divergence=binary_kl, delta=0.2'),
    (1, 'divergence=binary_tv, delta=0.1'),
  ]


def test_a_sweep_may_grow_and_not_change(tmp_path):
  plan.write(tmp_path, made_up_sweeps.sweep('num_steps=2'))
  plan.write(tmp_path, made_up_sweeps.sweep('num_steps=2,3', num_seeds=3))
  plan.write(  # Where its files lie changes no run.
    tmp_path,
    made_up_sweeps.sweep('num_steps=2,3', num_seeds=3, compilation_cache='/x'),
  )
  for other, difference in (
    (
      made_up_sweeps.sweep('num_steps=3', num_seeds=3),
      'num_steps=2: not among',
    ),
    (made_up_sweeps.sweep('num_steps=2,3'), 'seeds: 3 -> 2'),
    (
      made_up_sweeps.sweep('num_steps=2,3', num_seeds=3, data__group_size=8),
      r'data\.group_size: 4 -> 8',
    ),
  ):
    with pytest.raises(ValueError, match=rf'another sweep:\n  {difference}'):
      plan.write(tmp_path, other)
  assert len(plan.read(tmp_path).variants) == 2


def test_runs_of_other_code_are_reported(tmp_path):
  plan.write(tmp_path, made_up_sweeps.sweep(code='a'))
  assert 'code has changed' in plan.write(
    tmp_path, made_up_sweeps.sweep(code='b')
  )
  assert plan.read(tmp_path).code == 'b'


def test_the_folder_of_a_run_is_no_place_for_a_sweep(tmp_path):
  (tmp_path / workdir.CONFIG).write_text('{}')
  with pytest.raises(ValueError, match='holds a run, not a sweep'):
    plan.write(tmp_path, made_up_sweeps.sweep())


@pytest.mark.parametrize(
  'text', ['', '{', '[]', '{"format": 9}', '{"format": 1, "variants": []}']
)
def test_damaged_sweeps_are_refused(tmp_path, text):
  with pytest.raises(ValueError, match='holds no sweep'):
    plan.read(tmp_path)
  (tmp_path / plan.FILE).write_text(text)
  with pytest.raises(ValueError, match='is damaged'):
    plan.read(tmp_path)


def test_configs_are_checked_before_anything_runs():
  plan.check(
    made_up_sweeps.sweep(*made_up_sweeps.DELTAS), made_up_sweeps.defaults()
  )
  bad = made_up_sweeps.sweep(
    'trust_region.divergence=binray_tv,binary_tv,exact'
  )
  with pytest.raises(ValueError, match='nothing was run') as caught:
    plan.check(bad, made_up_sweeps.defaults())
  assert "'binray_tv'; did you mean 'binary_tv'?" in str(caught.value)
  assert 'divergence=exact: ' in str(caught.value)
  # What depends on the devices is for the run to say.
  plan.check(made_up_sweeps.sweep(mesh__data=3), made_up_sweeps.defaults())
  with pytest.raises(ValueError, match='--seeds: got 0'):
    plan.check(made_up_sweeps.sweep(num_seeds=0), made_up_sweeps.defaults())


def test_outcomes_are_of_either_command(tmp_path):
  sweep = made_up_sweeps.sweep(*made_up_sweeps.DELTAS, num_seeds=1)
  jobs = plan.jobs(sweep, made_up_sweeps.defaults())
  folders = [
    job_lib.folder_of(job, tmp_path / plan.RUNS, sweep.code) for job in jobs
  ]
  for folder in folders[:3]:
    made_up_sweeps.run(folder, [0.1])
  made_up_sweeps.finish(folders[0])
  made_up_sweeps.finish_by_hand(folders[1])
  (tmp_path / plan.FAILURES).write_text(
    json.dumps({folders[3].name: 'it broke'})
  )
  found = plan.outcomes(sweep, tmp_path, jobs)
  assert [one.error for one in found] == ['', '', 'not finished', 'it broke']
  (tmp_path / plan.FAILURES).write_text('[')
  assert plan.outcomes(sweep, tmp_path, jobs)[3].error == 'not finished'


def test_failures_are_kept(tmp_path):
  sweep = made_up_sweeps.sweep('num_steps=2,3', num_seeds=1, code='c')
  jobs = plan.jobs(sweep, made_up_sweeps.defaults())
  failed = plan.outcomes(sweep, tmp_path, jobs)[:1]
  plan.write_failures(tmp_path, failed)
  kept = json.loads((tmp_path / plan.FAILURES).read_text())
  assert kept == {failed[0].folder.name: 'not finished'}


def test_lines_name_the_folders_that_outcomes_look_into(tmp_path):
  sweep = made_up_sweeps.sweep('trust_region.delta=.1', num_seeds=2)
  jobs = plan.jobs(sweep, made_up_sweeps.defaults())
  _, line = plan.lines(sweep, tmp_path / 'a b', jobs)
  assert shlex.split(line) == [
    *('dppo', 'train', '--config=configs/tiny.py'),
    '--config.trust_region.delta_low=0.1',
    '--config.trust_region.delta_high=0.1',
    '--config.seed=1',
    f'--workdir={plan.outcomes(sweep, tmp_path / "a b", jobs)[1].folder}',
  ]


def test_the_flags_of_a_config():
  argv = '--grid a=1 --config c.py:x --config.n=3 --seeds=2 --config.b --zip=y'
  assert plan.config_arguments(argv.split()) == [
    *('--config=c.py:x', '--config.n=3', '--config.b')
  ]
