"""What is dear to compute is told from what is not, by its text."""

import time

import pytest

from dppo_jax.rewards.answers.cost import is_tractable


@pytest.mark.parametrize(
  'text',
  [
    '9^{9^{9^9}}',
    '9^{9^9}',
    '9^9^9',
    '2^{99999}',
    '2^99999',
    '10^{-99999}',
    '((((9^9)^9)^9)^9)^9',
    '9999!',
    '9!!',
    '(9!)!',
    r'\binom{10^9}{10^8}',
    r'\exp(\exp(\exp(9)))',
    'e^{e^{e^{9}}}',
    '(x+1)^{9^{9}}',
    'x^{y^{z^{w}}}',
    '{1',
    '1}{2',
    '(1}',
  ],
)
def test_the_dear_is_turned_away(text):
  assert not is_tractable(text)


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
  assert is_tractable(text)


def test_a_long_text_takes_no_time():
  start = time.process_time()
  for text in ('9^' * 50_000, '{' * 100_000, '!' * 100_000, '1' * 100_000):
    assert not is_tractable(text) or text[0] == '!'
  assert time.process_time() - start < 3.0
