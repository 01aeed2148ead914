import json

import pytest

from dppo_jax.analysis import table as table_lib
from dppo_jax.experiments.figures.harness import command, readme
from tests.support import figures, pictures

_DOCS = 'The rule of this figure.'


@pytest.fixture
def make(monkeypatch, tmp_path):
  """Makes the figure in a folder; returns the exit code and the folder."""

  def made(tier='cpu', broken=(), code='one'):
    monkeypatch.setattr(command.pool, 'run_jobs', figures.run_jobs(broken))
    monkeypatch.setattr(readme, 'figures_version', lambda: code)
    out = tmp_path / 'out'
    found = command.make(figures.FIGURE, _DOCS, tier, out, tmp_path / 'runs', 1)
    return found, out

  return made


def test_a_figure_is_made(make, capsys):
  code, out = make()
  assert code == 0
  names = sorted(path.name for path in out.iterdir())
  assert names == [
    'README.md',
    'facts.json',
    'made_up.csv',
    'made_up.png',
    'made_up.svg',
  ]
  table = table_lib.read(out / 'made_up.csv')
  assert len(table.rows) == 2 * 5 * 3
  assert table.values('held_out') == ['0.25', '', '0.5']
  pictures.assert_shows(
    out / 'made_up.svg', command.panels_of(figures.FIGURE, table)
  )
  printed = capsys.readouterr().out
  assert 'reproduced (n = 5, p = 0.031): TV | earns more.' in printed
  text = (out / 'README.md').read_text()
  for word in (
    '| TV \\| earns more. | **reproduced** | 5 | 0.031 |',
    '`python -m experiments.figures.made_up --tier=cpu --out=DIR`',
    '- Commit: ',
    '(sources one)',
    '- Seeds: 10, 11, 12, 13, 14\n',
    '- Runs: 10, 0 failed',
    '- Device: an abacus',
    'runs 20 s, CPU time 15 s',
    _DOCS,
    'Not yet run.',
  ):
    assert word in text, word


def test_the_picture_is_of_the_csv_alone(make):
  _, out = make()
  path = out / 'made_up.csv'
  before = path.read_text()
  assert '0.81' in before
  path.write_text(before.replace('0.81', '0.11'))
  command.redraw(figures.FIGURE, _DOCS, out)
  changed = table_lib.read(path)
  pictures.assert_shows(
    out / 'made_up.svg', command.panels_of(figures.FIGURE, changed)
  )


def test_what_is_there_is_judged_and_nothing_is_run(make, monkeypatch, capsys):
  _, out = make()
  facts = (out / 'facts.json').read_bytes()
  path = out / 'made_up.csv'
  table = table_lib.read(path)
  fewer = [row for row in table.rows if row['seed'] != '10']
  table_lib.write(path, fewer)
  capsys.readouterr()
  monkeypatch.setattr(command.pool, 'run_jobs', None)
  options = command.Options('cpu', None, out, 1, judge=True)
  assert command.follow(figures.FIGURE, _DOCS, options, out) == 0
  assert 'not distinguishable (n = 4, p = 0.062)' in capsys.readouterr().out
  assert '**not distinguishable** | 4 |' in (out / 'README.md').read_text()
  assert (out / 'facts.json').read_bytes() == facts


def test_a_crashed_seed_is_told_of_and_the_others_count(make, capsys):
  code, out = make(broken=[('TV', 11)])
  assert code == 1
  assert 'failed: TV, seed 11: ValueError: broken' in capsys.readouterr().err
  text = (out / 'README.md').read_text()
  assert '- Failed: TV, seed 11: ValueError: broken' in text
  assert '**not distinguishable** | 4 | 0.062 |' in text
  assert '- Runs: 10, 1 failed' in text


def test_nothing_but_crashes_is_an_error_and_keeps_what_was(make):
  _, out = make()
  every = [(name, seed) for name in ('PG-IS', 'TV') for seed in range(10, 15)]
  before = (out / 'made_up.csv').read_text()
  with pytest.raises(ValueError, match='no run has points'):
    make(broken=every)
  assert (out / 'made_up.csv').read_text() == before


@pytest.mark.parametrize('other', [{'code': 'two'}, {'tier': 'smoke'}], ids=str)
def test_other_results_are_kept_aside(make, capsys, other):
  _, out = make()
  before = (out / 'made_up.csv').read_bytes()
  make()
  assert not (out / 'earlier').exists()
  capsys.readouterr()
  make(**other)
  (aside,) = (out / 'earlier').iterdir()
  assert aside.name == 'cpu_one'
  assert (aside / 'made_up.csv').read_bytes() == before
  assert len(list(aside.iterdir())) == 5
  assert 'moved to' in capsys.readouterr().out
  assert json.loads((out / 'facts.json').read_text())['tier'] == (
    other.get('tier', 'cpu')
  )


def test_the_pod_is_told_of_and_not_run(make, capsys):
  code, out = make(tier='pod')
  assert code == 0
  assert not out.exists()
  printed = capsys.readouterr().out
  assert 'not yet run' in printed
  assert 'python -m experiments.train --config=x' in printed


def test_facts_that_are_damaged_are_told_of(make):
  _, out = make()
  (out / 'facts.json').write_text('{')
  with pytest.raises(ValueError, match=r'facts\.json: cannot be read'):
    command.redraw(figures.FIGURE, _DOCS, out)
