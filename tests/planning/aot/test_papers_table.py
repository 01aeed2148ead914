import csv
import json
import sys

import pytest

from dppo_jax.planning.aot import papers_table, programs, topologies
from tests.support import runs

_PLAN = {
  'topology': {'num_devices': 16},
  'mesh': {'data': 1, 'fsdp': 8, 'expert': 1, 'tensor': 2},
  'capacity': 16 * 2**30,
  'fits': False,
  'step_s': 20.0,
  'tokens_per_step': 1000,
  'phases': [
    {
      'name': 'sampling',
      'num_bytes': 3 * 2**30,
      'compiled': {
        'seconds': 12.3,
        'refused': '',
        'unread': '',
        'collectives': [{'num_bytes': 2**29}, {'num_bytes': 2**30}],
      },
    },
    {
      'name': 'training',
      'num_bytes': 17 * 2**30,
      'compiled': {
        'seconds': 60.0,
        'refused': 'no room',
        'unread': '',
        'collectives': [],
      },
    },
  ],
}


@pytest.fixture
def compiled(monkeypatch, tmp_path):
  """compile_row, with another program in place of the compiler's."""

  def compile_with(code):
    script = tmp_path / 'fake.py'
    script.write_text(f'import sys\npath = sys.argv[-2][7:]\n{code}')
    real = papers_table.subprocess.Popen
    monkeypatch.setattr(
      papers_table.subprocess,
      'Popen',
      lambda command, **options: real(
        [sys.executable, str(script), *command[3:]], **options
      ),
    )
    return papers_table.compile_row(
      papers_table.PodCase('a', 'v5e:4x4', ('--b=c',), 2), 'plan'
    )

  return compile_with


def test_a_row_says_what_the_plan_and_the_compiler_took(compiled):
  cells = compiled(f'open(path, "w").write({json.dumps(_PLAN)!r})')
  assert list(cells) == list(papers_table.COLUMNS)
  assert cells['row'] == 'a v5e:4x4 × 2'
  assert cells['flags'] == '--b=c'
  assert cells['mesh'] == 'fsdp 8 · tensor 2'
  assert (cells['fits'], cells['step'], cells['tokens']) == ('no', '20', '50')
  assert (cells['sampling_memory'], cells['training_memory']) == ('3.0', '17.0')
  assert cells['sampling_sent'] == '1.5'
  assert cells['training_sent'] == ''  # Refused: not known.
  assert cells['scoring_memory'] == ''
  assert float(cells['peak_rss']) >= 0
  assert not cells['problem']


def test_a_row_that_fails_says_why(compiled):
  cells = compiled('sys.exit("error: no such thing")')
  assert cells['problem'] == 'error: no such thing'
  assert 'no such thing' in papers_table.show([cells])


def test_rows_that_are_not_compiled_now_are_kept(tmp_path):
  path = tmp_path / 'docs' / 'pods.csv'

  def row(index, wall):
    empty = dict.fromkeys(papers_table.COLUMNS, '')
    return {**empty, 'row': papers_table.ROWS[index].name, 'wall': wall}

  papers_table.merge(path, [row(1, '5')])
  rows = papers_table.merge(path, [row(0, '7')])
  assert [each['wall'] for each in rows] == ['7', '5']
  rows = papers_table.merge(path, [row(1, '6')])
  assert [each['wall'] for each in rows] == ['7', '6']
  with path.open(newline='') as file:
    assert list(csv.DictReader(file)) == rows
  page = papers_table.show(rows)
  assert page.count('\n| ') == 4
  assert '`--config.mesh.tensor=8`' not in page  # Of this test's rows.


def test_every_row_is_a_config_and_a_machine():
  for row in papers_table.ROWS:
    topologies.parse(row.topology, row.num_slices)
    assert (runs.ROOT / 'configs' / f'{row.config}.py').is_file()
  assert set(programs.PHASES) == {'sampling', 'scoring', 'training'}
