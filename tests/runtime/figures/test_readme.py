import re

from dppo_jax.runtime.figures import readme
from dppo_jax.runtime.figures.verdicts import Finding
from tests.runtime.figures import figures

_FACTS = {
  'tier': 'cpu',
  'code': 'c0de',
  'commit': 'abc',
  'seeds': [],
  'num_runs': 0,
  'failed': [],
  'devices': ['an abacus'],
  'command_wall_s': 61.0,
  'command_cpu_s': 3.0,
  'runs_wall_s': 0.0,
  'runs_cpu_s': 0.0,
}


def test_a_figure_without_training_says_so():
  assert readme.about(_FACTS) == 'tier cpu · no training · an abacus'
  text = readme.write(figures.FIGURE, None, _FACTS, [])
  assert '- Seeds: none: nothing is trained' in text
  assert '1 min 1 s' in text


def test_verdicts_are_printed_with_n():
  found = Finding('A claim.', 'a rule', 'numbers', 'opposite', 3)
  text = readme.verdict_lines(figures.FIGURE, [found])
  assert '  opposite (n = 3): A claim.\n    numbers' in text


def test_the_commit_is_named():
  assert re.fullmatch(r'([0-9a-f]{12}|unknown)( \+ changes)?', readme.commit())


def test_sources_are_named():
  assert re.fullmatch('[0-9a-f]{16}', readme.figures_version())


def test_variants_show_what_sets_them_apart():
  text = readme.write(figures.FIGURE, None, _FACTS, [])
  shared, _, table = text.partition('| variant | settings |')
  assert '`objective.form=score`' in shared
  assert '`objective.form=score`' not in table
  assert '| PG-IS | `trust_region.rule=none` |' in table
  assert '`trust_region.divergence=binary_tv`' in table
