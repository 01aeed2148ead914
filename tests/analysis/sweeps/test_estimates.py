import math

import numpy as np
import pytest

from dppo_jax.analysis.sweeps import estimates
from dppo_jax.analysis.table import Points
from tests.support import made_up_sweeps


def _condensed(runs):
  """Rows of {(variant, seed): (rewards, masked)} as a file gives them back."""
  rows = [
    estimates.condense(
      [
        {
          'variant': variant,
          'seed': seed,
          'step': step,
          'reward': reward,
          # Of a rule that is not soft.
          'masked': masked,
          'dropped': masked,
          'mean_abs': 0.5,
          'held_out': math.nan if step else 0.25,
        }
        for step, reward in enumerate(rewards)
      ]
    )
    for (variant, seed), (rewards, masked) in runs.items()
  ]
  return Points([{name: str(v) for name, v in row.items()} for row in rows])


@pytest.mark.parametrize(
  ('rewards', 'expected'),
  [
    ([0.5] * 8, False),
    ([0.5] * 4 + [0.24] * 4, True),
    ([0.5] * 4 + [0.26] * 4, False),
    ([0.5] * 7, None),  # No two windows.
    ([0.0] * 20, None),
    ([-1.0] * 8, None),
    # Half of what it was, but over four of a window of ten steps.
    ([0.5] * 96 + [0.0] * 4, False),
    ([0.5] * 90 + [0.0] * 10, True),
    ([0.1] * 4 + [0.5] * 4 + [np.nan] * 9, False),
  ],
)
def test_collapsed(rewards, expected):
  assert estimates.collapsed(rewards) is expected


def test_lines():
  points = _condensed(
    {
      ('a', 0): ([0.2] * 8, 0.1),
      ('a', 1): ([0.4] * 8, 0.3),
      ('b', 1): ([0.9] * 4 + [0.1] * 4, 0.0),
      ('b', 2): ([0.1] * 8, 0.0),
    }
  )
  a, b, c = estimates.lines(points, ['a', 'b', 'c'], 'a')
  assert a.num_seeds == 2
  assert a.reward.value == pytest.approx(0.3)
  # Of two seeds, 12.706 standard errors either side: Student's table.
  assert a.reward.high == pytest.approx(0.3 + 12.706 * 0.1, abs=1e-3)
  assert a.reward.low == pytest.approx(0.3 - 12.706 * 0.1, abs=1e-3)
  assert 'bootstrap' not in estimates.__doc__
  assert a.masked.value == pytest.approx(0.2)
  assert a.held_out.value == 0.25
  assert a.num_pairs == 0
  assert np.isnan(a.difference.value)
  # Seed 1 alone is in both.
  assert b.num_pairs == 1
  assert b.difference.value == pytest.approx(0.5 - 0.4)
  assert (b.collapsed, b.num_judged) == (['1'], 2)
  assert (c.num_seeds, c.num_judged) == (0, 0)


def test_a_run_is_condensed_to_its_measured_values():
  steps = [
    {
      'variant': 'a',
      'seed': 3,
      'step': step,
      'masked': math.nan,
      'dropped': 0.5,
    }
    | more
    for step, more in enumerate(
      (
        {'reward': math.nan, 'held_out': 0.25, 'mean_abs': 0.1},
        {'reward': 0.2, 'held_out': 0.75, 'mean_abs': 0.2},
        {'reward': 0.4, 'held_out': math.nan, 'mean_abs': 0.3},
      )
    )
  ]
  row = estimates.condense(steps)
  assert (row['variant'], row['seed'], row['collapsed']) == ('a', 3, '')
  assert row['held_out'] == 0.75
  assert row['reward'] == pytest.approx(0.3)
  assert row['mean_abs'] == pytest.approx(0.2)
  assert math.isnan(row['masked'])
  assert row['dropped'] == 0.5


def test_families_differ_in_thresholds_alone():
  sweep = made_up_sweeps.sweep(*made_up_sweeps.DELTAS)
  assert estimates.families(sweep.variants) == {
    'divergence=binary_tv': [
      'divergence=binary_tv, delta=0.1',
      'divergence=binary_tv, delta=0.2',
    ],
    'divergence=binary_kl': [
      'divergence=binary_kl, delta=0.1',
      'divergence=binary_kl, delta=0.2',
    ],
  }
  alone = made_up_sweeps.sweep('trust_region.delta=.1,.2')
  assert estimates.families(alone.variants) == {
    'base': ['delta=0.1', 'delta=0.2']
  }


def test_aligned_reads_families_where_both_mask_equally_much():
  points = _condensed(
    {
      # A line from .2 at 10 % to .4 at 30 %, and one that is .1 above.
      ('a', 0): ([0.2], 0.1),
      ('b', 0): ([0.4], 0.3),
      ('c', 0): ([0.4], 0.2),
      ('d', 0): ([0.6], 0.4),
      # Ranges that do not meet.
      ('a', 1): ([0.2], 0.1),
      ('b', 1): ([0.4], 0.2),
      ('c', 1): ([0.4], 0.3),
      ('d', 1): ([0.6], 0.4),
    }
  )
  families = {'one': ['a', 'b'], 'two': ['c', 'd'], 'single': ['e']}
  (found,) = estimates.aligned(points, families, 'b')
  assert (found.family, found.other, found.num_pairs) == ('two', 'one', 1)
  assert found.dropped == pytest.approx(0.25)
  assert found.reward == pytest.approx(0.45)
  assert found.other_reward == pytest.approx(0.35)
  assert found.difference.value == pytest.approx(0.1)
  assert not list(estimates.aligned(points, families, 'e') or ())
