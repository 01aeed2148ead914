"""What README.md and docs/ show runs, parses and is there."""

import ast
import importlib
import pathlib
import re
import subprocess

import pytest

from dppo_jax.experiments.docs import commands, pages, tables

_ROOT = pathlib.Path(__file__).parents[1]
_PAGES = {
  str(path.relative_to(_ROOT)): path.read_text()
  for path in (*tables.pages(_ROOT), _ROOT / 'CHANGELOG.md')
}
# ml_collections loads a config file by a method that Python will remove.
pytestmark = pytest.mark.filterwarnings(
  'ignore:the load_module:DeprecationWarning'
)
_FENCE = re.compile(r'^```(\w*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r'`([^`\n]+)`')
_KEYS = {
  key if section == '' else f'{section}.{key}'
  for section, rows in tables.sections().items()
  for key, _, _ in rows
}
_SECTIONS = set(tables.sections()) - {''}
_OPS = 'divergences|trust_regions|cppo|objectives|advantages|masking|log_probs'


def _fences(text, *languages):
  return [m for m in _FENCE.finditer(text) if m[1] in languages]


def _with(*languages):
  return [page for page, text in _PAGES.items() if _fences(text, *languages)]


def _spans(page):
  return _SPAN.findall(_FENCE.sub('', _PAGES[page]))


@pytest.mark.parametrize('page', _with('python'))
def test_python_blocks_run_in_order_as_one_program(page):
  text = _PAGES[page]
  namespace = {'__name__': 'docs'}
  for block in _fences(text, 'python'):
    # Blank lines in front keep the line numbers of the page in a traceback.
    start = text.count('\n', 0, block.start(2))
    code = compile('\n' * start + block[2], page, 'exec')
    exec(code, namespace)


def test_readme_and_the_mathematics_have_blocks_that_run():
  assert {'README.md', 'docs/mathematics.md'} <= set(_with('python'))


@pytest.mark.parametrize('page', _with('py'))
def test_blocks_that_only_show_are_python(page):
  for block in _fences(_PAGES[page], 'py'):
    ast.parse(block[2])


@pytest.mark.parametrize('page', _with('bash'))
def test_commands_parse(page):
  for block in _fences(_PAGES[page], 'bash'):
    for command in commands.find(block[2]):
      commands.parse(command)


def test_the_cookbook_parses_with_the_config_that_it_shows(tmp_path):
  page = _PAGES['docs/guides/cookbook.md']
  (config,) = _fences(page, 'py')
  path = tmp_path / 'lookup.py'
  path.write_text(config[2])
  found = commands.find('\n'.join(block[2] for block in _fences(page, 'sh')))
  assert len(found) >= 8
  for command in found:
    arguments = [
      text.replace('--config=lookup.py', f'--config={path}')
      for text in command.arguments
    ]
    commands.parse(command._replace(arguments=arguments))


def _docstring(path):
  return ast.get_docstring(ast.parse((_ROOT / path).read_text())) or ''


_SOURCES = [
  str(path.relative_to(_ROOT))
  for pattern in (
    'configs/*.py',
    'experiments/[a-z]*.py',
    'experiments/bench/*.py',
  )
  for path in sorted(_ROOT.glob(pattern))
  if commands.find(_docstring(path))
]


def test_most_configs_and_entry_points_say_how_they_are_run():
  assert len(_SOURCES) > 30
  assert 'configs/qwen3_1_7b.py' in _SOURCES


@pytest.mark.parametrize('path', _SOURCES)
def test_commands_of_docstrings_parse(path):
  for module, arguments in commands.find(_docstring(path)):
    # Of some the config is FILE, of others any preset of it.
    chosen = [
      text.replace('=FILE', '=tiny').replace(':METHOD', '')
      for text in arguments
    ]
    commands.parse(commands.Command(module, chosen))


_RESULTS = sorted((_ROOT / 'experiments/figures/results').glob('*/README.md'))


@pytest.mark.parametrize('path', _RESULTS, ids=lambda path: path.parent.name)
def test_commands_of_kept_figures_parse(path):
  listed = commands.find(path.read_text().replace('`', '\n'))
  assert listed
  for command in listed:
    commands.parse(command)


def test_every_entry_point_is_shown():
  shown = {
    command.module
    for page in _with('bash')
    for block in _fences(_PAGES[page], 'bash')
    for command in commands.find(block[2])
  }
  internal = {'experiments.worker', 'experiments.tables'}
  internal |= {m for m in commands.entry_points() if '.docs' in m}
  assert set(commands.entry_points()) - internal <= shown


@pytest.mark.parametrize('page', _with('bash'))
def test_scripts_are_bash_and_name_what_exists(page):
  for block in _fences(_PAGES[page], 'bash'):
    done = subprocess.run(
      ['bash', '-n'],
      input=block[2],
      capture_output=True,
      text=True,
      check=False,
    )
    assert (done.returncode, done.stderr) == (0, ''), block[2]
    for path in re.findall(
      r'\b((?:configs|experiments)/[\w/]+\.\w+)', block[2]
    ):
      assert (_ROOT / path).exists(), path
    for key in re.findall(r'--config\.([\w.]+)', block[2]):
      assert key in _KEYS, key
    makefile = (_ROOT / 'Makefile').read_text()
    for target in re.findall(r'^make ([.a-z]+)', block[2], re.MULTILINE):
      assert re.search(rf'^{re.escape(target)}:', makefile, re.MULTILINE), (
        target
      )


def _slug(heading):
  text = re.sub(r'[`*\[\]]|\([^)]*\)', '', heading).lower()
  return re.sub(r'[^\w\- ]', '', text).strip().replace(' ', '-')


def _anchors(path):
  text = _FENCE.sub('', path.read_text())
  return {_slug(line) for line in re.findall(r'^#+ (.*)$', text, re.MULTILINE)}


@pytest.mark.parametrize('page', _PAGES)
def test_links_resolve(page):
  here = _ROOT / page
  for target in pages.links(_PAGES[page]):
    if re.match(r'\w+:', target):
      continue
    path, _, anchor = target.partition('#')
    file = (here.parent / path).resolve() if path else here
    assert file.is_file(), target
    if anchor:
      assert anchor in _anchors(file), target


_PATH = re.compile(r'([\w./]+\.(?:py|sbatch|ipynb|toml))(?:: (\w+))?')
_FILES = {
  path.name
  for folder in ('dppo_jax', 'configs', 'experiments', 'notebooks', 'tests')
  for path in (_ROOT / folder).rglob('*.*')
}


def _files(name):
  """Files that a page may mean: from the root, the package or the runtime."""
  roots = (_ROOT, _ROOT / 'dppo_jax', _ROOT / 'dppo_jax/runtime')
  return [root / name for root in roots if (root / name).is_file()]


def _is_key(span):
  name = span.split('=')[0]
  # `trust_region.delta` stands for `delta_low` and `delta_high`.
  return {name, f'{name}_low', f'{name}.prompt'} & _KEYS


def _is_function(span):
  match = re.match(rf'({_OPS})\.(\w+)', span)
  return match and hasattr(
    importlib.import_module(f'dppo_jax.ops.{match[1]}'), match[2]
  )


@pytest.mark.parametrize('page', [p for p in _PAGES if p != 'CHANGELOG.md'])
def test_code_spans_name_what_exists(page):
  for span in _spans(page):
    path = _PATH.fullmatch(span)
    if path and '/' in span:
      assert _files(path[1]), span
      if path[2]:
        text = _files(path[1])[0].read_text()
        symbol = rf'^(?:def |class )?{path[2]}\b'
        assert re.search(symbol, text, re.MULTILINE), span
    elif path:
      assert span in _FILES or (_ROOT / span).is_file(), span
    elif re.match(rf'(?:{"|".join(_SECTIONS)}|{_OPS})\.\w', span):
      other = re.fullmatch(r'\w+\.(?:html|npz|md|safetensors)(?:#\w+)?', span)
      assert other or _is_key(span) or _is_function(span), span


def test_readme_is_one_sitting():
  lines = _PAGES['README.md'].splitlines()
  assert len(lines) <= 190
  headings = [line for line in lines if line.startswith('## ')]
  assert headings[0] == '## Status'
