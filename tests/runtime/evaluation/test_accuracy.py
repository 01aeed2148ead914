"""The statistics of an evaluation, against slow and exact ones."""

from fractions import Fraction
import itertools
import math

import numpy as np
import pytest

from dppo_jax.runtime.evaluation import accuracy


def _exact(num_samples, correct, k):
  wrong = math.comb(num_samples - correct, k)
  return 1 - Fraction(wrong, math.comb(num_samples, k))


@pytest.mark.parametrize('num_samples', [1, 2, 7, 32])
def test_pass_at_is_the_binomial_formula(num_samples):
  correct = np.arange(num_samples + 1)
  found = accuracy.pass_at(correct, num_samples)
  assert found.shape == (num_samples + 1, num_samples)
  for c, k in itertools.product(correct, range(1, num_samples + 1)):
    exact = float(_exact(num_samples, int(c), k))
    assert found[c, k - 1] == pytest.approx(exact, rel=1e-13, abs=1e-15)


def test_pass_at_is_what_subsets_say():
  right = np.array([True, False, False, True, False])
  for k in range(1, 6):
    subsets = list(itertools.combinations(right, k))
    share = sum(map(any, subsets)) / len(subsets)
    assert accuracy.pass_at(np.array([2]), 5)[0, k - 1] == pytest.approx(share)


def test_pass_at_of_many_samples_is_finite():
  found = accuracy.pass_at(np.array([1, 5000]), 10_000)
  assert found[0] == pytest.approx(np.arange(1, 10_001) / 10_000, abs=1e-11)
  assert np.all((found >= 0) & (found <= 1))


def test_an_interval_is_that_of_the_mean():
  rng = np.random.default_rng(0)
  values = rng.random((400, 2)) * [1.0, 10.0]
  low, high = accuracy.bootstrap(values, 4000, 0.9, seed=1)
  error = values.std(axis=0) / 20
  np.testing.assert_allclose(low, values.mean(0) - 1.645 * error, rtol=0.01)
  np.testing.assert_allclose(high, values.mean(0) + 1.645 * error, rtol=0.01)


@pytest.mark.parametrize(('size', 'least'), [(8, 0.915), (30, 0.93)])
def test_an_interval_of_few_problems_covers_what_it_says(size, least):
  """Percentiles that are not expanded cover .885 of 8 and .93 of 30."""
  rng = np.random.default_rng(0)
  values = rng.normal(size=(size, 1000))
  low, high = accuracy.bootstrap(values, 1000, 0.95, seed=0)
  assert least <= np.mean((low <= 0) & (high >= 0)) <= 0.97


def test_many_problems_need_no_wider_tails():
  assert accuracy._tail(10**6, 0.95) == pytest.approx(0.025, rel=1e-4)
  assert accuracy._tail(30, 0.95) == pytest.approx(0.0188, rel=1e-2)
  # One problem says nothing of others: its value is both ends.
  low, high = accuracy.bootstrap(np.array([[0.5]]), 10, 0.95, seed=0)
  assert (low, high) == (0.5, 0.5)


def test_an_interval_depends_on_the_seed_alone(monkeypatch):
  values = np.random.default_rng(0).random((50, 3))
  first = accuracy.bootstrap(values, 200, 0.95, seed=1)
  np.testing.assert_array_equal(
    first, accuracy.bootstrap(values, 200, 0.95, seed=1)
  )
  assert np.all(first != accuracy.bootstrap(values, 200, 0.95, seed=2))
  # Nor on how many are drawn at once.
  monkeypatch.setattr(accuracy, '_BLOCK', 170)
  np.testing.assert_allclose(
    first, accuracy.bootstrap(values, 200, 0.95, seed=1), rtol=1e-12
  )


def test_problems_are_drawn_not_samples():
  # Within a problem all samples agree: as many draws as problems count.
  rewards = np.repeat([[0.0], [1.0]], 1000, axis=1)
  found = accuracy.summarize(rewards, 500, 0.95, 0)
  assert found.average == (0.5, 0.0, 1.0)
  assert found.pass_at[0] == (0.5, 0.0, 1.0)


def test_a_summary_of_rewards():
  rewards = np.array([[1.0, 0.0], [0.0, 0.0], [0.5, 2.0]])
  found = accuracy.summarize(rewards, 300, 0.95, 0)
  assert found.average.value == pytest.approx(3.5 / 6)
  assert [each.value for each in found.pass_at] == pytest.approx([0.5, 2 / 3])
  for each in (found.average, *found.pass_at):
    assert 0 <= each.low < each.value < each.high


def test_which_k_are_shown():
  assert accuracy.shown(1) == [1]
  assert accuracy.shown(6) == [1, 2, 4, 6]
  assert accuracy.shown(16) == [1, 2, 4, 8, 16]


def test_means_by_source_leave_out_those_without_a_name():
  rewards = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
  found = accuracy.by_source(rewards, ['b', 'a', '', 'b'])
  assert found == {'b': 0.5, 'a': 0.0}
  assert list(found) == ['b', 'a']  # In the order in which they come.
