import pytest

from dppo_jax.experiments.figures.harness import judging
from tests.support.tables import table


def _masks(clip_rare, bound_rare):
  values = {'clip': [0.04, 0.05, 0.05, 0.05, 0.05]}
  values['bound'] = [0.04, 0.02, 0.02, 0.02, 0.02]
  shares = {'clip': clip_rare, 'bound': bound_rare}
  return table(values, 'masked', masked_rare=shares)


@pytest.mark.parametrize(
  ('bound', 'word'),
  [
    ([0.0] + [0.0005] * 4, 'reproduced'),
    ([0.0079] + [0.0005] * 4, 'not distinguishable'),
    # As often is no fifth, and no five times as often either.
    ([0.0079] + [0.004] * 4, 'not reproduced'),
  ],
)
def test_rare_share(bound, word):
  # A fifth of what the clip masks is rare.
  points = _masks([0.008] + [0.01] * 4, bound)
  found = judging.rare_share(points, 'clip', 'bound')
  assert found.verdict == word
  assert found.num_seeds == 5
  assert found.seen.startswith('20.00% against')


def test_the_opposite_of_a_rare_share_is_a_rare_share():
  points = _masks([0.0] * 5, [0.004] * 5)
  found = judging.rare_share(points, 'clip', 'bound')
  assert found.verdict == 'opposite'


def test_rare_share_without_a_mask_has_no_seed():
  points = table(
    {'clip': [0.01], 'bound': [0.01]},
    'masked',
    masked_rare={'clip': [0.0], 'bound': [0.0]},
  )
  points.rows[:] = [row | {'masked': '0'} for row in points.rows]
  assert judging.rare_share(points, 'clip', 'bound').num_seeds == 0


def test_level():
  points = table({'a': [0.97, 0.99, 0.98, 0.98, 0.98]})
  for least, word in (
    (0.95, 'reproduced'),
    (0.975, 'not distinguishable'),
    (0.995, 'not reproduced'),
  ):
    assert judging.level(points, '', 'reward', least).verdict == word


def test_columns_differ():
  points = table({'a': [0.5, 0.6] + [0.5] * 3}, low={'a': [0.1] * 5})
  found = judging.columns_differ(points, 'a', '', 'reward', 'low', 0.4)
  assert found.verdict == 'reproduced'
  assert (
    judging.columns_differ(points, 'nobody', '', 'reward', 'low', 0.4).num_seeds
    == 0
  )


_FAMILIES = {'one': ('a', 'b'), 'other': ('c', 'd')}


def test_less_sensitive():
  points = table(
    {
      'a': [0.5, 0.5] * 3,
      'b': [0.6, 0.4] * 3,
      'c': [0.5, 0.9] * 3,
      'd': [0.1, 0.4] * 3,
    }
  )
  found = judging.less_sensitive(
    points, 'reward', _FAMILIES, 'one', 'other', 0.3
  )
  assert '+0.3, +0.4; mean +0.35 [' in found.seen
  assert found.verdict == 'reproduced'


def test_at_equal_mask():
  # Both mask .2 to .4 in common; there one has .5 and the other .3.
  points = table(
    {'a': [0.4] * 5, 'b': [0.6] * 5, 'c': [0.2] * 5, 'd': [0.4] * 5},
    masked={'a': [0.1] * 5, 'b': [0.5] * 5, 'c': [0.2] * 5, 'd': [0.4] * 5},
  )
  found = judging.at_equal_mask(
    points, 'reward', _FAMILIES, 'one', 'other', 0.1
  )
  assert '+0.2, +0.2' in found.seen
  assert found.verdict == 'reproduced'


@pytest.mark.parametrize(
  ('first', 'values', 'word'),
  [
    (0.2, {'a': [0.1] * 5, 'b': [0.5] + [0.3] * 4}, 'reproduced'),
    (0.05, {'a': [0.1] * 5, 'b': [0.5] + [0.3] * 4}, 'not reproduced'),
    (0.2, {'a': [0.1] * 5, 'b': [0.05] + [0.3] * 4}, 'not distinguishable'),
    (0.2, {'a': [0.1] * 5, 'b': [0.05] * 5}, 'opposite'),
  ],
)
def test_ladder(first, values, word):
  found = judging.ladder(table(values), '', 'reward', ('a', 'b'), first)
  assert found.verdict == word
