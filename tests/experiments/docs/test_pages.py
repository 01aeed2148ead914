import pathlib

import pytest

from dppo_jax.experiments.docs import pages


@pytest.fixture
def root(tmp_path):
  """A repository of three pages, a source, a picture and a notebook."""
  for name, text in {
    'docs/index.md': '[a](deep/a.md#x) [c](../code.py) [w](https://w.example)\n',
    'docs/deep/a.md': '# X\n\n![p](../../pictures/p.png) [r](../../READ.md)\n',
    'READ.md': '[back](docs/index.md) `[no](link.md)`\n',
    'code.py': 'x = 1\n',
    'pictures/p.png': 'png',
    'notebooks/.keep': '',
    'dppo_jax/ops/one.py': '"""One."""\n',
  }.items():
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  return tmp_path


def test_what_pages_link_to_comes_along(root, tmp_path):
  out = tmp_path / 'out'
  pages.assemble(root, out)
  index = (out / 'index.md').read_text()
  assert '[a](deep/a.md#x) [c](repository/code.py.md)' in index
  assert '(https://w.example)' in index
  assert 'x = 1' in (out / 'repository/code.py.md').read_text()
  deep = (out / 'deep/a.md').read_text()
  assert '![p](../repository/pictures/p.png)' in deep
  assert (out / 'repository/pictures/p.png').is_file()
  readme = (out / 'repository/READ.md').read_text()
  assert '[back](../index.md)' in readme


def test_a_link_to_nothing_is_named(root, tmp_path):
  (root / 'docs/index.md').write_text('[gone](gone.md)')
  with pytest.raises(ValueError, match=r'docs/index.md: gone.md: there is no'):
    pages.assemble(root, tmp_path / 'out')


def test_fences_are_left_alone():
  text = 'a $x$\n\n```py\n$y$ [l](m)\n```\n`$z$`\n'
  assert pages.outside_code(text, str.upper) == (
    'A $X$\n\n```py\n$y$ [l](m)\n```\n`$z$`\n'
  )
  assert pages.links(text) == []
  assert pages.links('![p](x.png) [`c`](d.md#e)') == ['x.png', 'd.md#e']


def test_mathematics_becomes_mathml(root, tmp_path):
  (root / 'docs/index.md').write_text('$a_b$ costs $5, and\n\n$$\\mu^*$$\n')
  pages.assemble(root, tmp_path / 'out')
  text = (tmp_path / 'out/index.md').read_text()
  assert text.count('<math') == 2
  assert 'costs $5, and' in text
  assert 'display="block"' in text
  assert '_' not in text.replace('costs', '')
  assert '*' not in text


def test_api_pages_name_every_module():
  root = pathlib.Path(__file__).parents[3]
  page = pages.api_page(root, 'ops')
  for module in pages.modules(root, 'ops'):
    assert f'::: {module}\n' in page
  assert pages.api_page(root, 'base') == (
    '# `dppo_jax.base`\n\n::: dppo_jax.base\n'
  )
