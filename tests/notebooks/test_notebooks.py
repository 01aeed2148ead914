"""Every notebook runs from its first cell to its last, and stores nothing."""

import ast
import os
import pathlib

import jax
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
import nbclient
import nbformat
import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_FOLDER = _ROOT / 'notebooks'

# The least number of claims each one asserts.
_NUM_CLAIMS = {
  'bounds': 40,
  'cppo_budget': 45,
  'divergences': 35,
  'ledger': 30,
  'masks': 30,
}


def _read(name):
  return nbformat.read(_FOLDER / f'{name}.ipynb', as_version=4)


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


def _kernel():
  """This interpreter, whatever kernels are installed."""
  nothing_installed = KernelSpecManager(kernel_dirs=[])
  return AsyncKernelManager(
    kernel_name='python3', kernel_spec_manager=nothing_installed
  )


@pytest.mark.slow
@pytest.mark.parametrize('name', _NUM_CLAIMS)
def test_it_runs(tmp_path, name):
  client = nbclient.NotebookClient(
    _read(name),
    km=_kernel(),
    startup_timeout=120,  # Seconds; a machine may be busy.
    timeout=300,  # Seconds a cell; a hanging one fails.
    extra_arguments=['--HistoryManager.enabled=False'],
  )
  # One plain device, as for a reader, and not the eight of the other tests.
  # Half of the time is compilation of small programs, so all of them are kept.
  environment = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': '',
    'JAX_COMPILATION_CACHE_DIR': jax.config.jax_compilation_cache_dir,
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
    'MPLBACKEND': 'module://matplotlib_inline.backend_inline',
    'PYTHONPATH': str(_ROOT),
  }
  client.execute(cwd=str(tmp_path), env=environment, cleanup_kc=True)
  outputs = [output for cell in _code(client.nb) for output in cell.outputs]
  figures = [o for o in outputs if 'image/png' in o.get('data', {})]
  assert len(figures) >= 2
