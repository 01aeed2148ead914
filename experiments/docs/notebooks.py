"""Notebooks: executed once, cached with their outputs, rendered as pages.

The repository has them without outputs. Outputs are cached in build/notebooks
under a hash of everything that determines them, so that the tests, which
execute every notebook, and the site share one execution.
"""

import base64
from collections.abc import Iterator
import contextlib
import hashlib
import os
import pathlib
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
import nbclient
import nbformat

_START_S = 120  # Timeout of a kernel's start, on a busy machine.
_CELL_S = 300  # Timeout of a cell.
# Names, and settings of figures, which `%reset` leaves.
_CLEAR = 'import matplotlib\nmatplotlib.rcdefaults()\n%reset -f'
_CODE = ('dppo_jax', 'configs')  # What notebooks import.


def names(root: pathlib.Path) -> list[str]:
  """Names of the notebooks, in alphabetical order."""
  return sorted(path.stem for path in (root / 'notebooks').glob('*.ipynb'))


def read(root: pathlib.Path, name: str) -> Any:
  """Notebook as in the repository, without outputs."""
  return nbformat.read(root / 'notebooks' / f'{name}.ipynb', as_version=4)


@contextlib.contextmanager
def open_kernel(
  root: pathlib.Path,
  folder: pathlib.Path | None = None,
  compilation_cache: str = '',
  xla_flags: str = '',
) -> Iterator[KernelManager]:
  """A fresh kernel for several notebooks, so that imports are paid once.

  Args:
    root: of the repository; notebooks import its packages.
    folder: working directory of the kernel; None for that of the notebooks.
    compilation_cache: folder of compiled programs; '' for no cache.
    xla_flags: options of the compiler.
  """
  kernel = KernelManager(  # This interpreter, not an installed kernel.
    kernel_name='python3',
    kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
  )
  # One plain device, as for a reader. Half of the time is compilation of small
  # programs, so all of them are cached.
  environment = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': xla_flags,
    'JAX_COMPILATION_CACHE_DIR': compilation_cache,
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
    'MPLBACKEND': 'module://matplotlib_inline.backend_inline',
    'PYTHONPATH': str(root),
  }
  kernel.start_kernel(
    cwd=str(root / 'notebooks' if folder is None else folder),
    env=environment,
    extra_arguments=['--HistoryManager.enabled=False'],
  )
  try:
    yield kernel
  finally:
    kernel.shutdown_kernel(now=True)


def execute(root: pathlib.Path, name: str, kernel: KernelManager) -> Any:
  """Notebook with the outputs of all its cells.

  Nothing is left of what other notebooks defined in the kernel.

  Args:
    root: of the repository.
    name: of the notebook.
    kernel: of `open_kernel`.

  Raises:
    nbclient.exceptions.CellExecutionError: a cell raised.
  """
  notebook = read(root, name)
  notebook.cells.insert(0, nbformat.v4.new_code_cell(_CLEAR))
  client = nbclient.NotebookClient(
    notebook,
    km=kernel,
    allow_errors=False,
    startup_timeout=_START_S,
    timeout=_CELL_S,
  )
  try:
    client.execute()
  finally:
    if client.kc is not None:
      client.kc.stop_channels()
  del notebook.cells[0]
  return notebook


def keep(root: pathlib.Path, name: str, notebook: Any) -> pathlib.Path:
  """Path of an executed notebook, after caching it."""
  path = _kept_at(root, name)
  path.parent.mkdir(parents=True, exist_ok=True)
  for old in path.parent.glob(f'{name}-*.ipynb'):
    old.unlink(missing_ok=True)
  whole = path.with_suffix(f'.{os.getpid()}')
  nbformat.write(notebook, whole)
  whole.replace(path)  # Tests run in several processes.
  return path


def kept(root: pathlib.Path, name: str) -> Any | None:
  """Cached notebook with outputs of the current cells and code, or None."""
  path = _kept_at(root, name)
  return nbformat.read(path, as_version=4) if path.is_file() else None


def _kept_at(root: pathlib.Path, name: str) -> pathlib.Path:
  digest = hashlib.sha256()
  sources = [
    path for part in _CODE for path in sorted((root / part).rglob('*.py'))
  ]
  for path in (root / 'notebooks' / f'{name}.ipynb', *sources):
    digest.update(str(path.relative_to(root)).encode())
    digest.update(path.read_bytes())
  return root / f'build/notebooks/{name}-{digest.hexdigest()[:16]}.ipynb'


def page(notebook: Any, name: str, folder: pathlib.Path) -> str:
  """Markdown of a notebook; its figures are written into `folder`."""
  parts = [f'*The notebook `notebooks/{name}.ipynb`.*']
  figures = 0
  for cell in notebook.cells:
    if cell.cell_type == 'markdown':
      parts.append(cell.source)
      continue
    parts.append(f'```python\n{cell.source}\n```')
    for output in cell.outputs:
      if 'image/png' in output.get('data', {}):
        figures += 1
        picture = folder / f'{name}-{figures}.png'
        picture.write_bytes(base64.b64decode(output.data['image/png']))
        parts.append(f'![Figure {figures} of {name}]({picture.name})')
      elif text := _text(output):
        parts.append(f'```text\n{text.rstrip()}\n```')
  if not figures:
    note = 'This build has no figures: it did not execute the notebook.'
    parts[0] += f'\n\n> {note}'
  # The title comes first.
  title = parts.pop(1)
  head, _, rest = title.partition('\n')
  return '\n\n'.join([head, parts[0], rest.strip(), *parts[1:]]) + '\n'


def _text(output: Any) -> str:
  if output.output_type == 'stream':
    return output.text if output.name == 'stdout' else ''
  return output.get('data', {}).get('text/plain', '')
