"""Every notebook runs from its first cell to its last, and stores nothing.

What it shows when it runs is kept for the site, which executes none again.
"""

import ast
import os
import pathlib
import re
from unittest import mock

import jax
import nbformat
import pytest

from dppo_jax.experiments.docs import notebooks
from tests.support import runs

_ROOT = pathlib.Path(__file__).parents[2]
_FOLDER = _ROOT / 'notebooks'

# The least number of claims each one asserts.
_NUM_CLAIMS = {
  'bounds': 40,
  'cppo_budget': 45,
  'divergences': 35,
  'ledger': 30,
  'masks': 30,
  'successors': 40,
}


def _read(name):
  return notebooks.read(_ROOT, name)


def _code(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


def test_every_notebook_is_here():
  found = {path.stem for path in _FOLDER.rglob('*.ipynb')}
  assert found == set(_NUM_CLAIMS)


@pytest.mark.parametrize('name', _NUM_CLAIMS)
def test_nothing_is_stored(name):
  for cell in _code(_read(name)):
    assert not cell.outputs, cell.source
    assert cell.execution_count is None, cell.source
    assert not cell.metadata, cell.source


@pytest.mark.parametrize('name', _NUM_CLAIMS)
def test_claims_are_asserted(name):
  nodes = [
    node
    for cell in _code(_read(name))
    for node in ast.walk(ast.parse(cell.source))
  ]
  claims = sum(isinstance(node, ast.Assert) for node in nodes)
  assert claims >= _NUM_CLAIMS[name]


@pytest.mark.parametrize('name', _NUM_CLAIMS)
def test_colors_are_those_of_the_palette(name):
  source = '\n'.join(cell.source for cell in _code(_read(name)))
  assert 'palette.RULES[' in source or 'palette.styles(' in source
  # By number or by table, a color means another rule in each notebook.
  assert not re.search(r"""['"](C\d|tab:\w+)['"]""", source)


@pytest.fixture(scope='module')
def kernel(tmp_path_factory):
  """One for all notebooks, that compiles as the tests do."""
  start = {'PYTHONSTARTUP': str(_ROOT / 'tests/support/kernel_start.py')}
  with (
    mock.patch.dict(os.environ, start),
    notebooks.open_kernel(
      _ROOT,
      tmp_path_factory.mktemp('kernel'),
      jax.config.jax_compilation_cache_dir,
      runs.devices(1)['XLA_FLAGS'],
    ) as opened,
  ):
    yield opened


@pytest.mark.slow
@pytest.mark.parametrize('name', _NUM_CLAIMS)
def test_it_runs(kernel, name):
  executed = notebooks.execute(_ROOT, name, kernel)
  notebooks.keep(_ROOT, name, executed)
  outputs = [output for cell in _code(executed) for output in cell.outputs]
  figures = [o for o in outputs if 'image/png' in o.get('data', {})]
  assert len(figures) >= 2


@pytest.mark.slow
def test_a_notebook_sees_nothing_of_another(kernel, tmp_path):
  (tmp_path / 'notebooks').mkdir()
  sources = {
    'one': "import matplotlib\nx = 1\nmatplotlib.rcParams['axes.grid'] = True",
    'two': "import matplotlib\nprint('x' in globals())\n"
    "print(matplotlib.rcParams['axes.grid'])",
  }
  for name, source in sources.items():
    cells = [nbformat.v4.new_code_cell(source)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(notebook, tmp_path / f'notebooks/{name}.ipynb')
  notebooks.execute(tmp_path, 'one', kernel)
  (cell,) = notebooks.execute(tmp_path, 'two', kernel).cells
  assert [output.text for output in cell.outputs] == ['False\nFalse\n']
