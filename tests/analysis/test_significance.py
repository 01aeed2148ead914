import itertools

import numpy as np
import pytest

from dppo_jax.analysis import significance


@pytest.mark.parametrize('size', range(1, 9))
def test_p_is_the_share_of_signs_that_agree_as_well(size):
  signs = list(itertools.product((-1.0, 1.0), repeat=size))
  counts = [sum(sign > 0 for sign in one) for one in signs]
  for above in range(size + 1):
    values = [0.1] * above + [-0.2] * (size - above)
    expected = np.mean([count >= above for count in counts])
    assert significance.sign_test(values) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
  ('values', 'p'),
  [
    ([], 1.0),
    ([0.5], 0.5),
    ([0.1, 0.2, 0.3], 1 / 8),
    ([0.1] * 4, 1 / 16),
    ([0.1] * 5, 1 / 32),
    ([0.1] * 7 + [-9.0], 9 / 256),
    ([0.1] * 4 + [0.0], 6 / 32),  # None above 0, so it counts against.
    ([0.1] * 5 + [np.nan], 1.0),
    ([0.1] * 5 + [np.inf], 1.0),
  ],
)
def test_p_of_signs(values, p):
  assert significance.sign_test(values) == p


def test_no_fewer_than_five_can_show_anything():
  assert significance.sign_test([1.0] * 4) > significance.LEVEL
  assert significance.sign_test([1.0] * 5) <= significance.LEVEL


def test_equivalence_is_two_one_sided_tests():
  within = [0.02, -0.03, 0.01, 0.0, 0.04]
  assert significance.equivalence(within, 0.05) == 1 / 32
  assert significance.equivalence(within, 0.04) == 6 / 32
  above = [0.06] * 5
  assert significance.equivalence(above, 0.05) == 1.0
  assert significance.equivalence(np.negative(above), 0.05) == 1.0


def test_a_mean_has_a_t_interval():
  # Student's own table: 2.776 standard errors of five.
  found = significance.mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
  error = np.sqrt(2.5 / 5)
  assert found.value == 3.0
  assert found.low == pytest.approx(3 - 2.776 * error, abs=1e-3)
  assert found.high == pytest.approx(3 + 2.776 * error, abs=1e-3)


def test_statistics_of_too_few_values_are_nan():
  assert np.isnan(significance.mean_interval([])).all()
  one = significance.mean_interval([0.5])
  assert one.value == 0.5
  assert np.isnan(one[1:]).all()


@pytest.mark.parametrize('size', [2, 3, 5, 10])
def test_an_interval_called_95_percent_covers_95_percent(size):
  rng = np.random.default_rng(size)
  draws, hits = 3000, 0
  for values in rng.normal(0.3, 2.0, (draws, size)):
    found = significance.mean_interval(values)
    hits += found.low <= 0.3 <= found.high
  # Three standard errors of the share are .012.
  assert hits / draws == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize('size', range(1, 8))
def test_a_sign_flip_is_the_share_of_signs_with_as_large_a_sum(size):
  rng = np.random.default_rng(size)
  values = rng.normal(size=size).round(2) + 0.2
  signs = np.array(list(itertools.product((-1.0, 1.0), repeat=size)))
  sums = signs @ np.abs(values)
  expected = np.mean(sums >= values.sum() - 1e-9)
  assert significance.sign_flip(values) == pytest.approx(expected)


@pytest.mark.parametrize(
  ('values', 'p'),
  [
    ([], 1.0),
    ([0.1] * 5, 1 / 32),
    ([0.0, 0.0], 1.0),  # Every sum is as large.
    ([0.1, np.nan], 1.0),
    ([1.0, -0.1], 2 / 4),
    ([0.3, 0.1, 0.2], 1 / 8),  # 0.1 + 0.2 is a little more than 0.3.
  ],
)
def test_sign_flips_by_hand(values, p):
  assert significance.sign_flip(values) == p


def test_too_many_values_to_flip_are_refused():
  most = significance.MAX_FLIPPED
  assert significance.sign_flip(np.ones(most)) == 2.0**-most
  with pytest.raises(ValueError, match=r'got 21 values; at most 20'):
    significance.sign_flip(np.ones(most + 1))


def test_holm_keeps_the_order_and_the_family_wise_error():
  assert significance.holm([]) == []
  assert significance.holm([0.4, 0.9]) == [0.8, 0.9]
  assert significance.holm([0.9, 0.001, 0.02]) == [0.9, 0.003, 0.04]
  # Under the null of eight tests at most one family in twenty finds one.
  rng = np.random.default_rng(0)
  found = [
    min(significance.holm(rng.uniform(size=8).tolist())) <= significance.LEVEL
    for _ in range(2000)
  ]
  assert np.mean(found) < 0.065
