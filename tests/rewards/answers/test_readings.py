"""Letters, names, units and the two ways to read a comma."""

import pytest

from dppo_jax.rewards.answers import parts, readings


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    (r'2\pi r + \theta e^{it}', {'r', 't', r'\theta'}),
    (r'\frac{x}{y} \text{ cm}', {'x', 'y'}),
    (r'\begin{pmatrix}a\end{pmatrix}', {'a'}),
    ('2A+b', {'A', 'b'}),
    ('12', set()),
  ],
)
def test_free_letters(text, expected):
  assert readings.letters(text) == expected


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    (r'12\pi \text{ cm}^2', r'12\pi'),
    (r'12\pi cm', r'12\pi'),
    (r'4\sqrt{3}\text{ inches}', r'4\sqrt{3}'),
    (r'\$2x', '2x'),
    (r'2x \text{ if } y', r'2x \text{ if } y'),
    ('2xy', '2xy'),
  ],
)
def test_units_of_formulas(text, expected):
  assert readings.without_unit(text) == expected


def test_a_comma_is_read_in_two_ways():
  assert readings.readings('25,130') == [['25,130'], ['25', '130']]
  assert readings.readings('25, 130') == [['25', '130']]
  assert readings.readings(r'\{1,2\}') == [['1', '2']]
  assert readings.readings('(1,2)') == [['(1,2)']]
  assert readings.readings(r'1\pm x') == [['1+ x', '1- x']]


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('x=5', '5'),
    ('5=x', '5'),
    ('f(x)=x^2', 'x^2'),
    ('x=x+1', None),
    ('x+1=5', None),
    ('x<5', None),
  ],
)
def test_values_with_a_name(text, expected):
  assert readings.assigned(parts.read_relation(text)) == expected


def test_assignments_and_coordinates():
  assert readings.assignments('y=2, x=1') == ['1', '2']
  assert readings.assignments('x=1, x=2') is None
  assert readings.assignments('x=1') is None
  assert readings.coordinates('(1,2)') == ['1', '2']
  assert readings.coordinates('[1,2]') is None


def test_a_rounded_number_is_near():
  assert readings.rounds('1/3', '0.33')
  assert not readings.rounds('42', '43')
  assert not readings.rounds('x', '43')


def test_a_letter_is_a_unit_where_the_reference_says_so():
  assert readings.letter_unit('5m', r'5\text{ m}')
  assert not readings.letter_unit('5m', '5')
  assert not readings.letter_unit('5s', r'5\text{ m}')
