"""The rules of the house that no linter knows."""

import ast
import pathlib
import sys

import pytest

from tests.support import runs

_ROOT = pathlib.Path(__file__).parents[1]
_PACKAGE = _ROOT / 'dppo_jax'
_MODULES = sorted(
  path.relative_to(_PACKAGE)
  for path in _PACKAGE.rglob('*.py')
  if path.name != '__init__.py'
)
# Of experiments/, what is no entry point but a library of its own.
_MIRRORED = sorted(
  path.relative_to(_ROOT)
  for folder in (
    'experiments/bench',
    'experiments/docs',
    'experiments/figures/harness',
  )
  for path in (_ROOT / folder).glob('*.py')
  if path.name != '__init__.py'
)
_SOURCES = sorted(
  path.relative_to(_ROOT)
  for folder in ('dppo_jax', 'configs', 'experiments')
  for path in (_ROOT / folder).rglob('*.py')
)
# Types alone: the tests of whatever uses them are its tests.
_UNTESTED = {
  pathlib.PurePath('base.py'),
  pathlib.PurePath('runtime/config/experiment.py'),
}
# Tests of no single module.
_CROSS_CUTTING = {
  pathlib.PurePath('test_structure.py'),
  pathlib.PurePath('test_docs.py'),
}
_TEST_ONLY_FOLDERS = {
  'testdata',
  'configs',
  'faults',
  'integration',
  'notebooks',
}


def _test_of(module: pathlib.PurePath) -> pathlib.PurePath:
  return module.with_name(f'test_{module.stem.strip("_")}.py')


@pytest.mark.parametrize('module', [*_MODULES, *_MIRRORED], ids=str)
def test_module_has_its_test(module):
  if module not in _UNTESTED:
    assert (_ROOT / 'tests' / _test_of(module)).is_file()


def test_every_test_has_its_module():
  tests = {
    path.relative_to(_ROOT / 'tests')
    for path in (_ROOT / 'tests').rglob('test_*.py')
  }
  mirrored = {_test_of(module) for module in [*_MODULES, *_MIRRORED]}
  stray = {
    test
    for test in tests - mirrored - _CROSS_CUTTING
    if test.parts[0] not in _TEST_ONLY_FOLDERS
    and test.parent != pathlib.PurePath('experiments')
    and not _parts_of(test) & mirrored
  }
  assert not stray


def _parts_of(test: pathlib.PurePath) -> set[pathlib.PurePath]:
  """Files whose tests these may be a part of: test_loss_forms of test_loss."""
  words = test.stem.split('_')
  names = ('_'.join(words[:count]) for count in range(2, len(words)))
  return {test.with_name(f'{name}.py') for name in names}


def test_no_folder_is_overfull():
  for folder in {s.parent for s in _SOURCES if s.parts[0] != 'configs'}:
    inside = [path for path in _SOURCES if path.parent == folder]
    assert len(inside) <= 23, folder  # 22 modules and __init__.


@pytest.mark.parametrize('source', _SOURCES, ids=str)
def test_module_fits_a_reader(source):
  assert len((_ROOT / source).read_text().splitlines()) <= 400


def test_entry_points_are_short():
  for path in (_ROOT / 'experiments').glob('*.py'):
    assert len(path.read_text().splitlines()) <= 60, path.name


def test_no_module_hides_behind_a_name():
  vague = {'utils', 'util', 'common', 'helpers', 'helper', 'misc'}
  names = {part for source in _SOURCES for part in source.with_suffix('').parts}
  assert not names & vague
  # `python dppo_jax/x/profile.py` would put it before the standard library.
  assert not {module.stem for module in _MODULES} & sys.stdlib_module_names


def _config_gets(source: str) -> list[int]:
  """Lines that call `.get` on something named like a configuration."""
  lines = []
  for node in ast.walk(ast.parse(source)):
    if not (
      isinstance(node, ast.Call)
      and isinstance(node.func, ast.Attribute)
      and node.func.attr == 'get'
    ):
      continue
    owner = ast.unparse(node.func.value)
    names = owner.replace('_', '.').split('.')
    if 'config' in names or 'cfg' in names:
      lines.append(node.lineno)
  return lines


def test_config_gets_are_found():
  source = 'config.model.get("a", 1)\nself._config.get("b")\nrow.get("c")'
  assert _config_gets(source) == [1, 2]


@pytest.mark.parametrize('source', _SOURCES, ids=str)
def test_config_is_never_read_with_a_hidden_default(source):
  assert not _config_gets((_ROOT / source).read_text())


@pytest.mark.parametrize('source', _SOURCES, ids=str)
def test_no_bare_assert_or_except(source):
  for node in ast.walk(ast.parse((_ROOT / source).read_text())):
    assert not isinstance(node, ast.Assert), f'line {node.lineno}'
    if isinstance(node, ast.ExceptHandler):
      assert node.type is not None, f'line {node.lineno}'


def _imported(source: str) -> set[str]:
  """First parts of the absolute names that a module imports."""
  names = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      names |= {alias.name.split('.')[0] for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
      names.add(node.module.split('.')[0])
  return names


@pytest.mark.parametrize('module', _MODULES, ids=str)
def test_configuration_stops_at_the_door(module):
  if module != pathlib.PurePath('runtime/config/build.py'):
    assert 'ml_collections' not in _imported((_PACKAGE / module).read_text())


def test_importing_everything_leaves_tensorflow_out():
  names = ['.'.join(('dppo_jax', *m.with_suffix('').parts)) for m in _MODULES]
  out = runs.said(
    'import importlib, sys\n'
    f'for name in {names}:\n'
    '  importlib.import_module(name)\n'
    'print(sorted(n for n in sys.modules if n.split(".")[0] == "tensorflow"))',
    fresh=True,
  )
  assert out.strip() == '[]'


def test_importing_the_package_imports_nothing():
  code = 'import sys, dppo_jax; print("jax" in sys.modules)'
  out = runs.said(code, fresh=True)
  assert out.strip() == 'False'


def test_a_command_begins_once_all_is_defined():
  """What stands below `cli.run(main)` would not exist while `main` runs."""
  for path in (_ROOT / 'experiments').rglob('*.py'):
    for node in ast.parse(path.read_text()).body[:-1]:
      if isinstance(node, ast.If) and '__name__' in ast.unparse(node.test):
        assert '.run(' not in ast.unparse(node), path.name
