import math

import numpy as np
import pytest

from dppo_jax.analysis import significance
from dppo_jax.experiments.figures.harness import verdicts

_UP = [0.2, 0.3, 0.1, 0.2, 0.2]
_DOWN = [-d for d in _UP]


@pytest.mark.parametrize(
  ('differences', 'effect', 'word'),
  [
    (_UP, 0.19, 'reproduced'),
    (_UP, 0.21, 'not reproduced'),  # A difference, but too small.
    (_DOWN, 0.19, 'opposite'),
    (_DOWN, 0.3, 'not reproduced'),
    # Below the effect in every seed, whatever the signs.
    ([0.2, 0.3, -0.01, 0.1, 0.2], 0.31, 'not reproduced'),
    ([0.0] * 5, 0.1, 'not reproduced'),
    ([0.2, 0.3, -0.01, 0.1, 0.2], 0.1, 'not distinguishable'),
    ([0.2, 0.3, 0.0, 0.1, 0.2], 0.1, 'not distinguishable'),
    # Of eight, seven are enough; of five or six none may differ.
    ([0.3] * 7 + [-0.1], 0.1, 'reproduced'),
    ([0.3] * 5 + [-0.1], 0.1, 'not distinguishable'),
    ([0.5] * 4, 0.1, 'not distinguishable'),
    ([-0.5] * 4, 0.1, 'not distinguishable'),
    ([0.0] * 4, 0.1, 'not distinguishable'),
    ([], 0.1, 'not distinguishable'),
    ([*_UP, np.nan], 0.1, 'not distinguishable'),
    ([*_UP, np.inf], 0.1, 'not distinguishable'),
  ],
)
def test_words(differences, effect, word):
  assert verdicts.of_differences(differences, effect) == word
  assert word in verdicts.WORDS
  assert word in verdicts.__doc__


def test_a_finding_shows_p_and_a_t_interval():
  found = verdicts.difference('It is.', 'a − b', _UP, 0.1, '0.6 against 0.4')
  assert (found.verdict, found.num_seeds, found.p) == ('reproduced', 5, 1 / 32)
  mean, low, high = significance.mean_interval(_UP)
  assert found.seen == (
    '0.6 against 0.4; differences by seed +0.2, +0.3, +0.1, +0.2, +0.2;'
    f' mean {mean:+.3g} [{low:+.3g}, {high:+.3g}]'
  )
  # That of the word: against the claim here.
  assert verdicts.difference('', '', _DOWN, 0.1).p == 1 / 32
  assert verdicts.difference('', '', [0.2, -0.3, 0.1], 0.1).p == 0.5
  assert verdicts.difference('', '', [0.2], 0.1).seen.endswith('mean +0.2')


def test_nothing_seen_is_no_verdict():
  found = verdicts.difference('', '', [], 0.1)
  assert (found.verdict, found.num_seeds, found.p) == (
    *('not distinguishable', 0, 1.0),
  )
  assert found.seen == 'differences by seed none; mean none'


@pytest.mark.parametrize(
  ('ratio', 'word'),
  [(5.1, 'reproduced'), (4.9, 'not reproduced'), (1 / 5.1, 'opposite')],
)
def test_the_opposite_of_a_multiple_is_a_multiple(ratio, word):
  margins, reverse = [ratio - 5.0] * 5, [1.0 - 5.0 * ratio] * 5
  found = verdicts.margin('', '', margins, reverse=reverse)
  assert (found.verdict, found.p) == (word, 1 / 32)
  # A level has no opposite.
  alone = verdicts.margin('', '', margins)
  assert alone.verdict == (word if word != 'opposite' else 'not reproduced')


@pytest.mark.parametrize(
  ('margins', 'reverse', 'word'),
  [
    ([1, 2], [-1, -2], 'reproduced'),
    ([1, -2], [-1, -2], 'not reproduced'),
    ([-1, -2], [1, 2], 'opposite'),
    ([-1, -2], [1, -2], 'not reproduced'),
    ([], [], 'not distinguishable'),
  ],
)
def test_what_is_computed_has_no_p(margins, reverse, word):
  found = verdicts.computed('', '', margins, 'numbers', reverse=reverse)
  assert (found.verdict, found.seen) == (word, 'numbers')
  assert math.isnan(found.p)


# The noise of a seed: symmetric, skewed, and such that one seed decides.
_NOISE = {
  'normal': lambda rng, shape: rng.normal(size=shape),
  'skewed': lambda rng, shape: rng.exponential(size=shape),
  'wild': lambda rng, shape: rng.standard_cauchy(shape),
}


@pytest.mark.parametrize('noise', _NOISE)
@pytest.mark.parametrize('num_seeds', [3, 5, 8])
def test_without_a_difference_few_claims_come_up(noise, num_seeds):
  draws = 4000
  pairs = _NOISE[noise](np.random.default_rng(0), (2, draws, num_seeds))
  found = [verdicts.of_differences(d, 0.0) for d in pairs[0] - pairs[1]]
  exact = sum(
    math.comb(num_seeds, k) / 2**num_seeds
    for k in range(num_seeds + 1)
    if sum(math.comb(num_seeds, j) for j in range(k, num_seeds + 1))
    <= significance.LEVEL * 2**num_seeds
  )
  assert exact <= significance.LEVEL
  # Three standard errors of the share.
  most = exact + 3 * math.sqrt(exact / draws)
  for word in ('reproduced', 'opposite'):
    share = found.count(word) / draws
    assert share <= most, word
    if exact and noise == 'normal':
      # The mean has the sign of most: nothing is lost to the effect of 0.
      assert share > 0.8 * exact, word
