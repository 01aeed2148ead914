import pathlib

from flax.traverse_util import flatten_dict
import pytest

from dppo_jax.configs import default
from dppo_jax.configs.presets import PRESETS
from dppo_jax.experiments.docs import commands, metrics, tables
from dppo_jax.ops.divergences import DIVERGENCES
from dppo_jax.ops.trust_regions import TRUST_REGIONS

_ROOT = pathlib.Path(__file__).parents[3]
_PAGES = tables.pages(_ROOT)


@pytest.mark.parametrize('page', _PAGES, ids=lambda path: path.name)
def test_tables_are_those_of_the_code(page):
  text = page.read_text()
  assert tables.rewrite(text) == text, 'to mend it: make tables'


def test_nothing_is_left_out():
  marked = {name for page in _PAGES for name in tables.marked(page.read_text())}
  assert {
    'divergences',
    'rules',
    'verifiers',
    'presets',
    'advantages',
    'downloads',
    'models',
  } <= marked
  sections = {f'config.{section or "top"}' for section in tables.sections()}
  internal = {'experiments.worker', 'experiments.tables'}
  internal |= {m for m in commands.entry_points() if m.endswith('.picture')}
  shown = set(commands.entry_points()) - internal
  assert sections | {f'flags.{name}' for name in shown} <= marked
  assert {f'metrics.{group}' for group in metrics.groups()} <= marked


def test_every_key_of_a_config_is_read_with_its_default():
  read = {
    f'{section}.{key}' if section else key: value
    for section, rows in tables.sections().items()
    for key, value, _ in rows
  }
  expected = flatten_dict(default.get_config().to_dict(), sep='.')
  assert set(read) == set(expected)
  for key, value in expected.items():
    assert read[key].replace('_', '') == repr(value).replace('_', ''), key


def test_rows_are_those_of_the_tables():
  for name, rows in (
    ('divergences', DIVERGENCES),
    ('rules', TRUST_REGIONS),
    ('presets', PRESETS),
  ):
    lines = tables.table(name).splitlines()[2:]
    assert [line.split('`')[1] for line in lines] == list(rows)


def test_a_marked_table_is_replaced_and_nothing_else():
  text = 'a\n\n<!-- table: rules -->\n\n| old |\n| --- |\n\nb\n'
  after = tables.rewrite(text)
  assert after == f'a\n\n<!-- table: rules -->\n\n{tables.table("rules")}\nb\n'
  assert tables.rewrite(after) == after


def test_an_unknown_table_is_refused_by_name():
  with pytest.raises(ValueError, match=r"table: unknown 'ruels'; known: "):
    tables.table('ruels')
