import ast
import pathlib
import zlib

import pytest

from dppo_jax.experiments.docs import pages, site

_ROOT = pathlib.Path(__file__).parents[3]
_DOCUMENTED = ('base', 'ops', 'lm_head', 'learner', 'sampling')


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  """The whole site; notebooks are shown as they are kept, not executed."""
  folder = tmp_path_factory.mktemp('docs')
  site.build(_ROOT, folder / 'pages', folder / 'site')
  return folder / 'site'


def test_every_link_picture_and_anchor_resolves(built):
  assert len(list(built.rglob('*.html'))) > 50
  assert site.problems(built) == []


def test_nothing_is_loaded_from_elsewhere(built):
  for path in built.rglob('*.html'):
    for line in path.read_text().splitlines():
      for loads in ('<script src="http', '<link rel="stylesheet" href="http'):
        assert loads not in line, path


def _public(module):
  """Dotted names of the public functions, classes and constants of a module."""
  parts = module.split('.')
  tree = ast.parse((_ROOT / f'{"/".join(parts)}.py').read_text())
  for node in tree.body:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
      names = [node.name]
    elif isinstance(node, ast.Assign | ast.AnnAssign):
      targets = node.targets if isinstance(node, ast.Assign) else [node.target]
      names = [t.id for t in targets if isinstance(t, ast.Name)]
    else:
      continue
    yield from (f'{module}.{n}' for n in names if not n.startswith('_'))


@pytest.mark.parametrize('package', _DOCUMENTED)
def test_every_public_symbol_is_documented(built, package):
  inventory = zlib.decompress(
    (built / 'objects.inv').read_bytes().split(b'\n', 4)[4]
  ).decode()
  there = {line.split(' ')[0] for line in inventory.splitlines()}
  names = {
    name for module in pages.modules(_ROOT, package) for name in _public(module)
  }
  assert names
  assert names - there == set()


def _write(folder, **files):
  for name, text in files.items():
    (folder / f'{name}.html').write_text(text)


def test_broken_links_are_found(tmp_path):
  _write(
    tmp_path,
    a='<a href="b.html#x">1</a><a href="b.html#y">2</a><a href="c.html">3</a>'
    '<img src="p.png"><a href="https://w.example/">4</a><a href="#z">5</a>',
    b='<h1 id="x">b</h1>',
  )
  assert site.problems(tmp_path) == [
    'a.html: b.html#y: there is no such anchor',
    'a.html: c.html: there is no such file',
    'a.html: p.png: there is no such file',
    'a.html: #z: there is no such anchor',
  ]
