import nbformat
import pytest

from dppo_jax.experiments.docs import notebooks


@pytest.fixture
def root(tmp_path):
  (tmp_path / 'notebooks').mkdir()
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs/a.py').write_text('x = 1\n')
  cells = [
    nbformat.v4.new_markdown_cell('# Title\n\nText.'),
    nbformat.v4.new_code_cell('print(1)'),
  ]
  notebook = nbformat.v4.new_notebook(cells=cells)
  nbformat.write(notebook, tmp_path / 'notebooks/n.ipynb')
  return tmp_path


def _executed(root):
  notebook = notebooks.read(root, 'n')
  notebook.cells[1].outputs = [
    nbformat.v4.new_output('stream', name='stdout', text='1\n'),
    nbformat.v4.new_output('display_data', data={'image/png': 'iVBORw=='}),
  ]
  return notebook


def test_a_result_is_kept_until_cells_or_code_change(root):
  assert notebooks.names(root) == ['n']
  assert notebooks.kept(root, 'n') is None
  notebooks.keep(root, 'n', _executed(root))
  assert notebooks.kept(root, 'n').cells[1].outputs
  (root / 'configs/a.py').write_text('x = 2\n')
  assert notebooks.kept(root, 'n') is None
  notebooks.keep(root, 'n', _executed(root))
  assert len(list((root / 'build/notebooks').iterdir())) == 1


def test_a_page_shows_cells_outputs_and_pictures(root):
  page = notebooks.page(_executed(root), 'n', root)
  assert page.startswith('# Title\n')
  assert '```python\nprint(1)\n```\n\n```text\n1\n```' in page
  assert '![Figure 1 of n](n-1.png)' in page
  assert (root / 'n-1.png').read_bytes() == b'\x89PNG'[:4]
  assert 'no figures' not in page


def test_a_page_without_figures_says_so(root):
  assert 'no figures' in notebooks.page(notebooks.read(root, 'n'), 'n', root)
