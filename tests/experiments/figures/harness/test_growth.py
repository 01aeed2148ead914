import math

import pytest

from dppo_jax.analysis.table import Points
from dppo_jax.experiments.figures.harness import growth
from tests.support.tables import table


@pytest.mark.parametrize(
  ('fast', 'word'),
  [
    ([0.8] + [0.7] * 4, 'reproduced'),
    ([0.8] + [0.3] * 4, 'not distinguishable'),
    ([0.3] + [0.2] * 4, 'not reproduced'),
    ([0.1] + [0.05] * 4, 'opposite'),
  ],
)
def test_times(fast, word):
  points = table({'fast': fast, 'slow': [0.3] + [0.2] * 4}, 'p')
  # Steps 1 and 2 are .01 below and above.
  found = growth.times(
    points, 'It is.', 'p', 'fast', 'slow', 2.0, where={'step': '1'}
  )
  assert found.verdict == word
  low = sum(fast) / 5 - 0.01
  assert found.seen.startswith(f'{low:.3g} against 0.21;')
  assert found.num_seeds == 5


def test_times_of_the_seeds_that_both_have():
  points = table({'fast': [0.8, 0.7], 'slow': [0.3]}, 'p')
  where = {'step': '2'}
  found = growth.times(points, 'It is.', 'p', 'fast', 'slow', 2.0, where=where)
  assert (found.num_seeds, found.verdict) == (1, 'not distinguishable')


def _curves(**runs):
  return Points(
    [
      {'variant': v, 'seed': str(s), 'step': str(step), 'p': str(value)}
      for v, seeds in runs.items()
      for s, values in enumerate(seeds)
      for step, value in enumerate(values, 1)
    ]
  )


def test_sooner():
  points = _curves(
    fast=[[0.1, 0.6, 0.4], *[[0.1, 0.2, 0.7]] * 4],
    slow=[[0.1, 0.2, 0.9], *[[0.1, 0.1, 0.5]] * 4],
  )
  found = growth.sooner(points, 'It is.', 'p', 'fast', 'slow', 0.5)
  # A run that never passes the level counts one step after its last.
  assert (
    'p > 0.5 at step 2 and 3, 3 and 4, 3 and 4, 3 and 4, 3 and 4 by'
    in found.seen
  )
  assert (found.verdict, found.num_seeds) == ('reproduced', 5)
  again = growth.sooner(points, 'It is.', 'p', 'slow', 'fast', 0.5)
  assert again.verdict == 'opposite'


def test_counts():
  points = Points(
    [
      {'problem': 'ascent', 'variant': v, 'label': label, 'refreshes': str(n)}
      for v, counts in (('clip', (7, 44)), ('tv', (2, 3)))
      for label, n in zip(('.1', '1e-5'), counts, strict=True)
    ]
  )
  found = growth.counts(points, 'clip', 'tv', 2.0)
  assert found.seen == '7 to 2, 44 to 3'
  assert (found.verdict, found.num_seeds) == ('reproduced', 2)
  # Nothing is left to chance: one case of two is enough against it.
  assert math.isnan(found.p)
  assert growth.counts(points, 'clip', 'tv', 5.0).verdict == 'not reproduced'
  assert growth.counts(points, 'tv', 'clip', 2.0).verdict == 'opposite'
