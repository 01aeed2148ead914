"""Numbers are read exactly, or not at all."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
import pytest

from dppo_jax.rewards.quantities import read_number, same_number


@pytest.mark.parametrize(
  ('text', 'value'),
  [
    ('7', 7),
    ('-7', -7),
    ('+7', 7),
    ('−7', -7),
    ('007', 7),
    ('7.', 7),
    ('7.50', Fraction(15, 2)),
    ('.5', Fraction(1, 2)),
    ('0.1', Fraction(1, 10)),
    ('1,234,567.25', Fraction(4938269, 4)),
    ('1{,}234', 1234),
    ('12,34', None),
    ('1,2345', None),
    (',5', None),
    ('$1,000', 1000),
    (r'\$18', 18),
    ('$-18$', -18),
    ('3/4', Fraction(3, 4)),
    ('-3/4', Fraction(-3, 4)),
    ('3/-4', Fraction(-3, 4)),
    ('3 / 4', Fraction(3, 4)),
    ('13 / 4', Fraction(13, 4)),
    ('3/0', None),
    ('1 1/2', Fraction(3, 2)),
    ('-1 1/2', Fraction(-3, 2)),
    ('1 1/0', None),
    (r'\frac{3}{4}', Fraction(3, 4)),
    (r'-\dfrac{3}{4}', Fraction(-3, 4)),
    (r'\frac34', Fraction(3, 4)),
    (r'1\frac{1}{2}', Fraction(3, 2)),
    (r'1\frac{-1}{2}', None),
    (r'\frac{3}{0}', None),
    (r'\left3\right', 3),
    ('1e3', 1000),
    ('1.5E-2', Fraction(3, 200)),
    (r'2\times10^{3}', 2000),
    (r'2 \times 10^3', 2000),
    ('1e64', 10**64),
    ('1e65', None),
    ('1e99999', None),
    ('0 5 7 9', 579),
    ('- 5', -5),
    ('12 34', None),
    ('1 +', None),
    ('', None),
    ('%', None),
    ('.', None),
    ('-', None),
    ('9^9', None),
    ('٣', None),
    ('²', None),
    ('nan', None),
    ('inf', None),
    ('1_000', None),
    ('0x10', None),
    ('7 apples', None),
    ('1' * 64, int('1' * 64)),
    ('1' * 65, None),
    ('1' * 100_000, None),
  ],
)
def test_values(text, value):
  found = read_number(text)
  assert (found and found.value) == value
  assert found is None or not found.percent


def test_percents_are_marked():
  assert read_number('12.5%') == (Fraction(25, 2), True)
  assert read_number(r'12 \%') == (12, True)


@pytest.mark.parametrize(
  ('answer', 'reference', 'same'),
  [
    ('20%', '20%', True),
    ('20%', '0.2', True),
    ('20%', '20', True),
    ('20', '20%', True),
    ('0.2', '20%', True),
    ('20%', '2', False),
    ('2000', '20%', False),
    ('0.2', '20', False),
    ('0.3333', '1/3', False),
    ('0.1', '1/10', True),
  ],
)
def test_equality_is_exact(answer, reference, same):
  assert same_number(read_number(answer), read_number(reference)) is same


@given(st.fractions(max_denominator=10**6))
def test_fractions_come_back(value):
  assert read_number(str(value)).value == value


@given(st.integers(-(10**20), 10**20))
def test_separators_change_nothing(value):
  assert read_number(f'{value:,}').value == value
  assert read_number(' '.join(str(value))).value == value


@given(st.text(max_size=200))
def test_any_text_is_read_or_not(text):
  found = read_number(text)
  assert found is None or isinstance(found.value, Fraction)
