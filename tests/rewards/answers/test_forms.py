"""Answers with an exact form, and those that a formula decides."""

import pytest

from dppo_jax.rewards.answers.forms import (
  read_choice,
  read_form,
  same_form,
  same_ratio,
)
from dppo_jax.rewards.answers.spelling import canonical


@pytest.mark.parametrize(
  ('text', 'kind'),
  [
    ('42', 'number'),
    ('42 apples', 'number'),
    ('forty-two', 'number'),
    ('one hundred twenty-three', 'number'),
    ('ten six', 'words'),
    ('1101_2', 'based'),
    ('77 base 8', 'based'),
    ('6:30', 'colon'),
    ('6 PM', 'colon'),
    ('3 to 4', 'colon'),
    (r'\emptyset', 'nothing'),
    ('No solutions.', 'nothing'),
    (r'-\infty', 'infinite'),
    ('Friday', 'words'),
    ('PQR', 'words'),
    ('yes', 'words'),
    ('June 20', 'words'),
  ],
)
def test_kinds(text, kind):
  assert read_form(canonical(text)).kind == kind


@pytest.mark.parametrize(
  'text', ['x+1', 'x', 'ab', 'xyz', 'abcd', '2t', 'x_2', 'red, blue', '1,2']
)
def test_formulas_and_lists_have_none(text):
  assert read_form(canonical(text)) is None


@pytest.mark.parametrize(
  ('answer', 'reference', 'expected'),
  [
    ('Evelyn', 'evelyn', True),
    ('ABD', 'ADB', False),
    ('east', 'seat', False),
    ('1101_2', '1101_3', False),
    ('1101', '1101_2', True),
    ('1101_2', '1101', False),
    ('63_{10}', '63', True),
    ('6:30 PM', '6:30', True),
    ('6:30', '6:30 PM', False),
    ('none', 'no solution', True),
    ('undefined', 'no solution', False),
    ('Friday', '5', False),
    ('5', 'x+1', None),
    ('Friday', 'x+1', False),
    ('x', 'x+1', None),
  ],
)
def test_what_is_decided(answer, reference, expected):
  found = same_form(read_form(answer), read_form(reference))
  assert found is expected


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('(B) 17', ('B', '17')),
    ('B.', ('B', '')),
    ('B', ('B', '')),
    ('B: x', ('B', 'x')),
    (r'\text{(C)} 42', ('C', '42')),
    ('b', None),
    ('B or C', None),
    ('(B) or (C)', None),
    ('B. C.', None),
    ('B 17', None),
    ('Bob', None),
  ],
)
def test_choices(text, expected):
  assert read_choice(canonical(text)) == expected


def test_a_ratio_is_its_terms():
  assert same_ratio('3:4', r'\frac{3}{4}')
  assert same_ratio('3/4', '3:4')
  assert not same_ratio('6:30', '1/5')
  assert not same_ratio('3:4', '0.75')
