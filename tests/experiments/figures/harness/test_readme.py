import math
import re

from dppo_jax.experiments.figures.harness import readme
from dppo_jax.experiments.figures.harness.verdicts import ClaimVerdict
from tests.support import figures

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


def test_seeds_that_chose_settings_are_told_of():
  tuned = {**_FACTS, 'seeds': [2, 10, 11]}
  text = readme.write(figures.FIGURE, None, tuned, [])
  assert '- Seeds: 2, 10, 11; settings were tuned with them' in text
  text = readme.write(figures.FIGURE, None, {**_FACTS, 'seeds': [10, 11]}, [])
  assert '- Seeds: 10, 11\n' in text


def test_bands_are_named():
  text = readme.write(figures.FIGURE, None, _FACTS, [])
  assert 'minimum to maximum over seeds; they are not' in text


def test_what_has_no_p_shows_none():
  found = ClaimVerdict(
    'A claim.', 'a rule', 'numbers', 'reproduced', 5, math.nan
  )
  assert '(n = 5, p = –)' in readme.verdict_lines(figures.FIGURE, [found])
  text = readme.write(figures.FIGURE, None, _FACTS, [found])
  assert '| A claim. | **reproduced** | 5 | – | numbers | a rule |' in text


def test_verdicts_are_printed_with_n():
  found = ClaimVerdict('A claim.', 'a rule', 'numbers', 'opposite', 3, 0.125)
  text = readme.verdict_lines(figures.FIGURE, [found])
  assert '  opposite (n = 3, p = 0.12): A claim.\n    numbers' in text


def test_the_commit_is_named():
  assert re.fullmatch(r'([0-9a-f]{12}|unknown)( \+ changes)?', readme.commit())


def test_sources_are_named():
  assert re.fullmatch('[0-9a-f]{16}', readme.figures_version())


def test_variants_show_what_sets_them_apart():
  text = readme.write(figures.FIGURE, None, _FACTS, [])
  shared, _, table = text.partition('| variant | settings |')
  assert '`objective.loss_form=score`' in shared
  assert '`objective.loss_form=score`' not in table
  assert '| PG-IS | `trust_region.rule=none` |' in table
  assert '`trust_region.divergence=binary_tv`' in table
