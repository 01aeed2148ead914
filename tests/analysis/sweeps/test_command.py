import pytest

from dppo_jax.analysis.jobs import pool
from dppo_jax.analysis.jobs.job import code_version
from dppo_jax.analysis.sweeps import command, plan, report
from tests.support import made_up_sweeps

_BROKEN = ('num_steps=3', 1)


@pytest.fixture(scope='module')
def sweep():
  return made_up_sweeps.sweep('num_steps=2,3', code=code_version())


def _run(sweep, folder, baseline=None):
  return command.run(sweep, folder, made_up_sweeps.defaults(), baseline, 1)


def test_a_failure_is_reported_and_not_fatal(
  monkeypatch, tmp_path, capsys, sweep
):
  monkeypatch.setattr(pool, 'run_jobs', made_up_sweeps.run_jobs({_BROKEN}))
  assert _run(sweep, tmp_path) == 1
  text = capsys.readouterr().out
  assert '3 runs finished, 1 not' in text
  assert 'num_steps=3, seed 1: ValueError: <b>broken</b>' in text
  assert (tmp_path / report.FOLDER / report.PAGE).exists()
  # And said again by who only looks.
  assert command.show(tmp_path, made_up_sweeps.defaults(), None) == 1
  assert capsys.readouterr().out == text
  monkeypatch.setattr(pool, 'run_jobs', made_up_sweeps.run_jobs())
  assert _run(sweep, tmp_path, 'num_steps=3') == 0
  assert 'Baseline: num_steps=3.' in capsys.readouterr().out
  assert command.show(tmp_path, made_up_sweeps.defaults(), None) == 0


def test_an_interrupted_sweep_can_be_looked_at(
  monkeypatch, tmp_path, capsys, sweep
):
  def interrupted(jobs, root, *, parallel):
    made_up_sweeps.run_jobs()(jobs[:3], root, parallel=parallel)
    raise KeyboardInterrupt

  monkeypatch.setattr(pool, 'run_jobs', interrupted)
  with pytest.raises(KeyboardInterrupt):
    _run(sweep, tmp_path)
  assert 'The same command resumes' in capsys.readouterr().err
  assert command.show(tmp_path, made_up_sweeps.defaults(), None) == 1
  text = capsys.readouterr().out
  assert '3 runs finished, 1 not' in text
  assert 'num_steps=3, seed 1: not finished' in text


def test_no_folder_is_created_for_an_invalid_sweep(
  monkeypatch, tmp_path, sweep
):
  monkeypatch.setattr(pool, 'run_jobs', made_up_sweeps.run_jobs())
  folder = tmp_path / 'new'
  with pytest.raises(ValueError, match='--baseline: unknown'):
    _run(sweep, folder, 'nobody')
  with pytest.raises(ValueError, match='num_steps: got -1'):
    _run(made_up_sweeps.sweep('num_steps=-1'), folder)
  with pytest.raises(ValueError, match='holds no sweep'):
    command.show(folder, made_up_sweeps.defaults(), None)
  assert not folder.exists()


def test_printed_commands_record_the_sweep_for_a_report(
  tmp_path, capsys, sweep
):
  assert command.print_lines(sweep, tmp_path, made_up_sweeps.defaults()) == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 4
  assert all(' --config.num_steps=' in line for line in lines)
  folder = lines[0].partition('--workdir=')[2]
  made_up_sweeps.run(
    tmp_path / plan.RUNS / folder.rpartition('/')[2], [0.1, 0.2]
  )
  made_up_sweeps.finish_by_hand(
    tmp_path / plan.RUNS / folder.rpartition('/')[2]
  )
  assert command.show(tmp_path, made_up_sweeps.defaults(), None) == 1
  assert '1 runs finished, 3 not' in capsys.readouterr().out
