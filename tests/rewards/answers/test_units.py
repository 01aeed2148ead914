"""What may follow a number, and what makes another answer of it."""

import pytest

from dppo_jax.rewards.answers.units import NO_UNIT, Unit, contradict, read_unit


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('', NO_UNIT),
    (r'\%', Unit('%', 1)),
    (r'\text{ percent}', Unit('%', 1)),
    (r'^\circ', Unit('degree', 1)),
    (r'^\circ \text{C}', Unit('degree', 1)),
    (r'\text{ dollars}', Unit('$', 1)),
    ('apples', Unit('?', 1)),
    ('red apples', Unit('?', 1)),
    ('个', Unit('?', 1)),
    (r'\text{ cm}^2', Unit('cm^2', 1)),
    ('square cm', Unit('cm^2', 1)),
    ('cm^3', Unit('cm^3', 1)),
    ('km/h', Unit('?', 1)),
    ('(meters)', Unit('m', 1)),
    ('(since 6*7=42)', Unit('?', 1)),
    (r'\text{ m}', Unit('m', 1)),
    ('million', Unit('', 10**6)),
    ('million dollars', Unit('$', 10**6)),
    ('m', None),
    ('t', None),
    ('x^2', None),
    ('or 43', None),
    ('and more', None),
    ('dozen', None),
    ('(or 43)', None),
    ('(43)', None),
    ('to 43', None),
    ('seven', None),
    ('a b c d e f g h', None),
    ('+ 1', None),
  ],
)
def test_units(text, expected):
  assert read_unit(text) == expected


def test_a_letter_is_a_unit_where_it_is_asked_for():
  assert read_unit('m', letters=True) == Unit('m', 1)


@pytest.mark.parametrize(
  ('answer', 'reference', 'expected'),
  [
    ('$', '%', True),
    ('%', '?', True),
    ('m', 'km', True),
    ('m', '?', False),
    ('m', '', False),
    ('m', 'm', False),
  ],
)
def test_contradictions(answer, reference, expected):
  assert contradict(answer, reference) is expected
