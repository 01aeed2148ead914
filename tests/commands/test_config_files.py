import pathlib

import pytest

from dppo_jax.commands import config_files, entry_points


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
  'argv',
  [
    ['x', '--config=tiny:grpo'],
    ['x', '--config=tiny.py:grpo'],
    ['x', '--config=configs/tiny:grpo'],
    ['x', '--config=configs/tiny.py:grpo'],
    ['x', '--config', 'tiny:grpo'],
  ],
)
def test_a_shipped_config_is_found_from_any_folder(argv):
  value = config_files.resolve(argv)[-1].removeprefix('--config=')
  path, preset = value.split(':')
  assert preset == 'grpo'
  assert 'def get_config' in pathlib.Path(path).read_text()
  assert config_files.problem(config_files.resolve(argv)) == ''


def test_a_preset_alone_is_one_of_the_quickstart():
  (argument,) = config_files.resolve(['--config=dppo_binary_kl'])
  file = entry_points.CONFIGS / 'quickstart.py'
  assert argument == f'--config={file}:dppo_binary_kl'


def test_a_file_goes_before_a_shipped_config(tmp_path):
  (tmp_path / 'tiny').touch()
  for argument in ('--config=tiny', '--config=mine/tiny.py', '--seed=tiny'):
    assert config_files.resolve(['x', argument]) == ['x', argument]


@pytest.mark.parametrize(
  ('value', 'message'),
  [
    ('Tiny', "no file 'Tiny'; did you mean 'tiny'? Known: cppo"),
    ('tny:preset', "no file 'tny'; did you mean 'tiny'? Known: cppo"),
    ('GRPO', "no file 'GRPO'; did you mean 'grpo'? Known: pg_is"),
    ('tny.py', "no file 'tny.py'; did you mean"),
    ('mine/b.py', "no file 'mine/b.py'; did you mean 'mine/a.py'? Known: m"),
    ('nowhere/x.py', "no file 'nowhere/x.py'. Known: cppo"),
    ('mine', "'mine' is a folder; name a file in it (mine/a.py, mine/c.py)"),
    ('run.json', "'run.json' is no Python file; a config is a .py file"),
  ],
)
def test_what_is_no_config_is_told_with_what_is(tmp_path, value, message):
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine/a.py').write_text('def get_config(): ...')
  (tmp_path / 'mine/c.py').write_text('')
  (tmp_path / 'run.json').write_text('{}')
  told = config_files.problem(['x', f'--config={value}'])
  assert told.startswith(f'--config: {message}')
  assert config_files.problem(['x', '--config', value]) == told


def _error(path, text):
  path.write_text(text)
  try:
    namespace = {}
    exec(compile(text, str(path), 'exec'), namespace)
    namespace['get_config']()
  except Exception as error:
    return error
  raise AssertionError('it was to fail')


@pytest.mark.parametrize(
  ('text', 'told'),
  [
    ('x = 1\nget_config = (', "mine.py, line 2: '(' was never closed."),
    ('x = 1\ny = fals', "mine.py, line 2: NameError: name 'fals' is not"),
    ('def get_config():\n  return 1 / 0', 'mine.py, line 2: ZeroDivisionErr'),
  ],
)
def test_an_error_of_a_config_names_its_line(tmp_path, text, told):
  file = tmp_path / 'mine.py'
  error = _error(file, text)
  line = config_files.explain(error, ['x', '--config=mine.py:grpo'])
  assert line.startswith(f'--config: {told}')
  # Of another file it is none of ours.
  assert config_files.explain(error, ['x', '--config=other.py']) == ''


def test_a_config_needs_its_function():
  lost = AttributeError("module 'm' has no attribute 'get_config'")
  told = config_files.explain(lost, ['x', '--config=mine.py'])
  assert told.startswith('--config: mine.py has no get_config(); define it')
  taken = TypeError('get_config() takes 0 positional arguments but 1 was given')
  told = config_files.explain(taken, ['x', '--config=mine.py:grpo'])
  assert told.startswith('--config: get_config() of mine.py takes no preset;')
  other = AttributeError("'dict' object has no attribute 'to_dict'")
  told = config_files.explain(other, ['x', '--config=mine.py'])
  assert told.startswith('--config: get_config() of mine.py returns a dict;')
