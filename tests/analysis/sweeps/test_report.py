import pytest

from dppo_jax.analysis import html_page
from dppo_jax.analysis import table as table_lib
from dppo_jax.analysis.jobs import job as job_lib
from dppo_jax.analysis.jobs.job import Outcome
from dppo_jax.analysis.sweeps import estimates, plan, report
from tests.support import made_up_sweeps, pictures

# Reward and masked share by delta and divergence.
_SEEN = {
  'divergence=binary_tv, delta=0.1': (0.4, 0.2),
  'divergence=binary_tv, delta=0.2': (0.5, 0.1),
  'divergence=binary_kl, delta=0.1': (0.2, 0.25),
  'divergence=binary_kl, delta=0.2': (0.3, 0.15),
}


@pytest.fixture(scope='module')
def reported(tmp_path_factory):
  """A sweep of which one run failed, and what its report printed."""
  folder = tmp_path_factory.mktemp('sweep')
  sweep = made_up_sweeps.sweep(*made_up_sweeps.DELTAS)
  outcomes = []
  for job in plan.jobs(sweep, made_up_sweeps.defaults()):
    place = job_lib.folder_of(job, folder / plan.RUNS, sweep.code)
    reward, masked = _SEEN[job.name]
    made_up_sweeps.run(place, [reward + 0.01 * job.seed] * 8, masked)
    failed = job.seed == 1 and job.name.endswith('binary_kl, delta=0.1')
    error = 'ValueError: <b>$x_{' if failed else ''
    outcomes.append(Outcome(job=job, folder=place, error=error))
  baseline = 'divergence=binary_tv, delta=0.2'
  return folder, report.make(folder, sweep, outcomes, baseline)


def _line(text, name):
  return next(line.split() for line in text.splitlines() if name in line)


def test_the_tables(reported):
  _, text = reported
  assert '4 variants × 2 seeds, 7 runs finished, 1 not' in text
  assert _line(text, 'binary_kl, delta=0.2')[2:] == [
    # 12.7 standard errors of two seeds: .005 each.
    *('2/2', '0.305', '[0.241,', '0.369]', '0.500', '[0.500,', '0.500]'),
    *('15.00%', '15.00%', '-0.200', '[-0.200,', '-0.200]', '2', '0/2'),
  ]
  # One seed says nothing about others.
  assert _line(text, 'binary_kl, delta=0.1')[2:5] == ['1/2', '0.200', '–']
  assert _line(text, 'divergence=binary_kl  divergence=binary_tv')[:6] == [
    *('divergence=binary_kl', 'divergence=binary_tv', '1'),
    *('17.50%', '0.275', '0.425'),
  ]
  assert 'binary_kl, delta=0.1, seed 1' in text
  assert 'ValueError: <b>$x_{' in text


def test_the_page_and_the_pictures(reported):
  folder, _ = reported
  out = folder / report.FOLDER
  text = (out / report.PAGE).read_text()
  assert '&lt;b&gt;$x_{' in text
  assert '<b>' not in text
  assert 'base64,' in text
  assert 'A seed collapsed if' in text
  table = table_lib.read(out / report.POINTS)
  assert len(table.values('variant')) == 4
  kept = table_lib.read(out / report.RUNS)
  assert len(kept.rows) == 7
  assert all((folder / plan.RUNS / r['folder']).is_dir() for r in kept.rows)
  drawn = pictures.drawn(out / f'{report.PICTURE}.svg')
  # Curves, masked shares and bars of each; a line a family.
  assert len(drawn) == 3 * 4 + 2


def test_many_variants_are_not_all_drawn(tmp_path):
  values = ','.join(map(str, range(2, 16)))
  sweep = made_up_sweeps.sweep(f'num_steps={values}', num_seeds=1)
  outcomes = [
    Outcome(
      job=job, folder=made_up_sweeps.run(tmp_path / job.name, [0.1]), error=''
    )
    for job in plan.jobs(sweep, made_up_sweeps.defaults())
  ]
  text = report.make(tmp_path, sweep, outcomes, 'num_steps=2')
  assert 'num_steps=15' in text
  svg = (tmp_path / report.FOLDER / f'{report.PICTURE}.svg').read_text()
  assert 'first 12 of 14' in svg
  assert len(pictures.drawn(tmp_path / report.FOLDER / 'sweep.svg')) == 36


def test_long_runs_are_thinned_and_runs_without_metrics_left_out(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(report, 'MAX_POINTS', 8)
  sweep = made_up_sweeps.sweep('num_steps=2,3', num_seeds=1)
  first, second = plan.jobs(sweep, made_up_sweeps.defaults())
  outcomes = [
    Outcome(
      job=first, folder=made_up_sweeps.run(tmp_path / 'a', [0.1] * 9), error=''
    ),
    Outcome(job=second, folder=tmp_path / 'nowhere', error=''),
  ]
  text = report.make(tmp_path, sweep, outcomes, 'num_steps=3')
  assert _line(text, 'num_steps=2')[1:3] == ['1/1', '0.100']
  assert _line(text, 'num_steps=3')[1:3] == ['0/1', '–']
  table = table_lib.read(tmp_path / report.FOLDER / report.POINTS)
  assert [row['step'] for row in table.rows] == ['1', '4', '7']


def test_a_report_without_finished_runs_says_so(tmp_path):
  sweep = made_up_sweeps.sweep(num_seeds=1)
  (job,) = plan.jobs(sweep, made_up_sweeps.defaults())
  failed = Outcome(job=job, folder=tmp_path, error='it broke')
  text = report.make(tmp_path, sweep, [failed], 'base')
  assert 'it broke' in text
  assert text.endswith('No run was finished.')
  assert not (tmp_path / report.FOLDER).exists()


def test_the_baseline_is_the_first_or_the_one_asked_for():
  variants = made_up_sweeps.sweep('num_steps=2,3').variants
  assert report.choose_baseline(variants, None) == 'num_steps=2'
  assert report.choose_baseline(variants, 'num_steps=3') == 'num_steps=3'
  with pytest.raises(
    ValueError, match=r"--baseline: unknown 'num_step=3'; did you mean 'num_s"
  ):
    report.choose_baseline(variants, 'num_step=3')


def test_the_method_text_is_escaped_and_complete():
  assert len(estimates.__doc__) < html_page.MAX_TEXT
