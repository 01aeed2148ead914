"""Numbers are read exactly, or not at all."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
import pytest

from dppo_jax.rewards.answers.quantities import (
  Quantity,
  read_digits,
  read_plain,
  read_quantity,
  same_quantity,
)


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
    ('0 5 7 9', None),
    ('3 7', None),
    ('7 250', 7250),
    ('1 234 567.5', Fraction(2469135, 2)),
    ('1 234567', None),
    (r'0.\overline{45}', Fraction(5, 11)),
    (r'2.1\overline{6}', Fraction(13, 6)),
    ('0.333...', None),
    ('½', Fraction(1, 2)),
    ('**17**', 17),
    ('5 million', 5_000_000),
    ('5 dozen', None),
    ('42 or 43', None),
    ('- 5', -5),
    ('12 34', None),
    ('1 +', None),
    ('', None),
    ('%', None),
    ('.', None),
    ('-', None),
    ('2^3', None),
    ('٣', None),
    ('²', None),
    ('nan', None),
    ('inf', None),
    ('1_000', None),
    ('0x10', None),
    ('7 apples', 7),
    ('7 t', None),
    ('7t', None),
    ('1' * 64, int('1' * 64)),
    ('1' * 65, None),
    ('1' * 100_000, None),
  ],
)
def test_values(text, value):
  found = read_quantity(text)
  assert (found and found.value) == value
  assert found is None or found.unit != '%'


def test_units_are_named():
  assert read_quantity('12.5%') == (Fraction(25, 2), '%')
  assert read_quantity(r'12 \%') == (12, '%')
  assert read_quantity(r'12\text{ percent}') == (12, '%')
  assert read_quantity('$12') == read_quantity('12 dollars') == (12, '$')
  assert read_quantity(r'5\text{ cm}^2') == (5, 'cm^2')
  assert read_quantity(r'\$5\%') is None


def test_digits_are_read_where_they_are_spelled():
  assert read_digits('0 5 7 9') == 579
  assert read_digits('- 1 2') == -12
  for text in ('57 9', '5.7', '', 'a', '1 ' * 200):
    assert read_digits(text) is None


def test_bare_digits_take_the_fast_way():
  assert read_plain('-1.50') == Fraction(-3, 2)
  for text in ('1,000', '$1', '1 2', '1.', '1e3', '1' * 65):
    assert read_plain(text) is None


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
    ('$8', '8%', False),
    ('8%', '$8', False),
    ('$8', '8', True),
    ('8 km', '8 meters', False),
    ('8 apples', '8', True),
  ],
)
def test_equality_is_exact(answer, reference, same):
  found = same_quantity(read_quantity(answer), read_quantity(reference))
  assert found is same


@given(st.fractions(max_denominator=10**6))
def test_fractions_come_back(value):
  assert read_quantity(str(value)) == Quantity(value, '')


@given(st.integers(-(10**20), 10**20))
def test_separators_change_nothing(value):
  assert read_quantity(f'{value:,}').value == value
  assert read_quantity(f'{value:,}'.replace(',', ' ')).value == value
  assert read_digits(' '.join(str(value))) == value


@given(st.text(max_size=200))
def test_any_text_is_read_or_not(text):
  found = read_quantity(text)
  assert found is None or isinstance(found.value, Fraction)
