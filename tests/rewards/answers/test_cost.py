"""What is dear to compute is told from what is not, by its text.

Bounds are lowered here, so that what is refused is small as well.
"""

import math
import time

import pytest

from dppo_jax.rewards.answers import cost


@pytest.fixture
def low(monkeypatch):
  """Bounds of 2^8 for numbers and of 2^16 where there is a letter."""
  monkeypatch.setattr(cost, 'MAX_BITS', 8.0)
  monkeypatch.setattr(cost, '_MAX_BITS_OF_LETTERS', 16.0)


@pytest.mark.parametrize(
  'text',
  [
    '2^{10}',
    '2^10',
    '10^{-3}',
    '2^{2^4}',
    '2^{2^{2^2}}',
    '(((2^2)^2)^2)^2',
    '100 \\cdot 100',
    '6!',
    '3!!',
    '(3!)!',
    '(2^2)!!',
    r'\binom{10}{3}',
    r'\exp(6)',
    r'\exp(\exp(2))',
    'e^{e^2}',
    '(x+1)^{10}',
    'x^{y^{z}}',
    'x^{10}',
  ],
)
@pytest.mark.usefixtures('low')
def test_the_dear_is_turned_away(text):
  assert not cost.is_tractable(text)


@pytest.mark.parametrize(
  'text',
  [
    '2^3',
    '2^{7}',
    '10^{-2}',
    '2^{2^2}',
    '((2^2)^2)^1',
    '100 + 1',
    '5!',
    '(3)!',
    r'\binom{5}{2}',
    r'\exp(2)',
    r'\exp(\exp(1))',
    '(x+1)^{2}',
    'x^{y}',
    'x^{6}',
    r'90^\circ',
  ],
)
@pytest.mark.usefixtures('low')
def test_the_small_stays(text):
  assert cost.is_tractable(text)


@pytest.mark.parametrize('text', ['2^2^2', '2^{2}^{2}', '{1', '1}{2', '(1}'])
def test_what_is_no_formula_is_turned_away(text):
  assert not cost.is_tractable(text)


@pytest.mark.parametrize(
  'text',
  [
    '7e^{0.04153 x}',
    '(n-1)!',
    '(3!)!',
    r'\frac{(2n)!}{n!}',
    r'3^4 \cdot 12500',
    'n^2+12345',
    'x^2+y^2=10000',
    '2^{2024}',
    '2024!',
    r'\frac{1}{2^{99}}',
    '5^{3^{2}}',
    '2^{2^{10}}',
    '3^{2^{n}}',
    'x^{y^{z}}',
    r'\frac{1}{\sqrt{2\pi}} e^{-\frac{x^2}{2}}',
    r'\binom{100}{50}',
    r'90^\circ + 9999',
    '[0,1)',
    r'\{1, 2\}',
  ],
)
def test_the_honest_stays(text):
  assert cost.is_tractable(text)


def test_the_bounds_are_those_of_numbers_that_people_write():
  digits = math.log10(2)
  assert 5_900 < cost.MAX_BITS * digits < 10_000  # 2024! has 5,815.
  assert cost._MAX_BITS_OF_LETTERS * digits < 320_000


def test_a_long_text_takes_no_time():
  start = time.process_time()
  assert not cost.is_tractable('{' * 100_000)
  assert not cost.is_tractable('1' * 100_000)
  assert cost.is_tractable('!' * 100_000)
  assert cost.is_tractable('(0)' * 30_000)
  assert time.process_time() - start < 3.0
