"""A sweep of two variants and two seeds, two of its runs compared, mistakes."""

import json
import shlex

import pytest

from dppo_jax.analysis.jobs.job import code_version
from dppo_jax.analysis.sweeps import command, compare, plan, report
from dppo_jax.runtime.storage import workdir
from tests.support import made_up_sweeps, runs

# Several command lines in one process, as importing takes seconds.
_DRIVER = """
import contextlib, io, json, sys
from unittest import mock
from absl import flags
from dppo_jax.runtime import cli
from dppo_jax.experiments import sweep
names = ('config', 'grid', 'zip', 'seeds', 'workdir', 'print_only', 'report')
ends = []
for arguments in json.loads(sys.argv[1]):
  for name in names:
    flags.FLAGS[name].unparse()
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    with mock.patch.object(sys, 'argv', ['sweep', *arguments]):
      argv = cli.parse_flags(sys.argv)
      code = cli.guard(sweep.main, argv)
  ends.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(ends))
"""
_NAMES = ('delta=0.001', 'delta=0.5')


@pytest.fixture(scope='module')
def swept(tmp_path_factory):
  """Folder of a sweep that has run."""
  folder = tmp_path_factory.mktemp('swept')
  assert _run(folder) == 0
  return folder


def _run(folder):
  changes = {path.replace('.', '__'): v for path, v in runs.SMALLEST.items()}
  sweep = made_up_sweeps.sweep(
    'trust_region.delta=.001,.5',
    code=code_version(),
    compilation_cache='',
    trust_region__divergence='binary_tv',
    ledger__every_n_steps=1,
    **changes,
  )
  with runs.jobs_in_process():
    return command.run(sweep, folder, made_up_sweeps.defaults(), None, 1)


def test_every_variant_has_every_seed_and_a_line(swept, capsys):
  assert len(list((swept / plan.RUNS).iterdir())) == 4
  assert command.show(swept, made_up_sweeps.defaults(), None) == 0
  lines = capsys.readouterr().out.splitlines()
  for name in _NAMES:
    (line,) = (line for line in lines if line.strip().startswith(name))
    assert line.split()[1] == '2/2'
  assert (swept / report.FOLDER / report.PAGE).stat().st_size > 10_000


def test_again_it_runs_nothing(swept, capsys):
  before = {p: p.stat().st_mtime_ns for p in (swept / plan.RUNS).rglob('*')}
  assert _run(swept) == 0
  assert '0 runs to do, 4 finished before' in capsys.readouterr().err
  after = {p: p.stat().st_mtime_ns for p in (swept / plan.RUNS).rglob('*')}
  assert after == before


def test_runs_of_one_seed_are_compared_token_by_token(swept, tmp_path):
  folders = {
    (config['seed'], config['trust_region']['delta_low']): str(folder)
    for folder in (swept / plan.RUNS).iterdir()
    for config in [workdir.read_config(folder)]
  }
  text = compare.compare([folders[0, 0.001], folders[0, 0.5]], tmp_path)
  lines = [line.split() for line in text.splitlines()]
  assert ['trust_region.delta_low', '0.001', '0.5'] in lines
  tokens = next(line for line in lines if '|' in line)[3]
  first = next(
    line[1]
    for line in lines
    if line and line[0] == 'delta=0.001' and len(line) == 8
  )
  # Before any update both sampled the same, so that all tokens are shared.
  assert int(tokens.replace(',', '')) == int(first.replace(',', '')) > 0


def test_commands(tmp_path):
  config = ['--config=configs/tiny.py', f'--workdir={tmp_path / "new"}']
  grid = '--grid=trust_region.delta=.1,.2'
  lines = [
    [*config, '--grid=trust_region.detla=1'],
    [*config, '--grid=trust_region.divergence=binray_tv'],
    [*config, '--config.num_steps=3', '--seeds=2', grid, '--print_only'],
    [f'--workdir={tmp_path}', '--report'],
    [*config, '--seeds=1', '--zip=num_steps=1,2', '--print_only'],
    ['--grid=num_steps=1', f'--workdir={tmp_path}'],
  ]
  key, value, printed, nothing, other, bare = json.loads(
    runs.said(_DRIVER, json.dumps(lines))
  )
  assert key[0] == value[0] == nothing[0] == other[0] == bare[0] == 1
  assert "trust_region.detla: no such key; did you mean 'delta'?" in key[2]
  assert "'binray_tv'; did you mean 'binary_tv'?" in value[2]
  assert printed[0] == 0
  commands = [shlex.split(line) for line in printed[1].splitlines()]
  assert len(commands) == 4
  assert commands[0][:4] == [
    *('dppo', 'train', '--config=configs/tiny.py'),
    '--config.num_steps=3',
  ]
  assert 'holds no sweep' in nothing[2]
  assert 'holds another sweep' in other[2]
  assert '--config: missing' in bare[2]


def test_compare_says_what_is_no_run(tmp_path):
  code, out, err = runs.end(runs.start('compare', str(tmp_path), 'nowhere'))
  assert (code, out) == (1, '')
  assert f'{tmp_path}: holds no run: it has no config.json' in err
  assert 'nowhere: there is no such folder.' in err
