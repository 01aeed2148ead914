"""Intervals, inequalities and conditions say the same sets."""

import pytest

from dppo_jax.rewards.answers.solution_sets import read_set, same_set
from dppo_jax.rewards.answers.spelling import canonical


def _same(answer, reference):
  sets = [read_set(canonical(text)) for text in (answer, reference)]
  assert None not in sets
  return same_set(*sets, lambda first, second: first == second)


@pytest.mark.parametrize(
  ('answer', 'reference'),
  [
    ('x > 3', r'(3,\infty)'),
    ('3 < x', r'(3, \infty)'),
    (r'6 \ge x \ge 2', '[2,6]'),
    (r'x \in [2,6]', '[2,6]'),
    (r'\{x : x > 7\}', r'(7,\infty)'),
    (r'\{x \in \mathbb{R} \mid x > 7\}', 'x>7'),
    (r'x < 1 \text{ or } x > 2', r'(2,\infty) \cup (-\infty,1)'),
    (r'x \in (-\infty,1) \cup (2,\infty)', r'(2,\infty) \cup (-\infty,1)'),
    (r'x \ne 3', r'(-\infty,3) \cup (3,\infty)'),
    (r'\mathbb{R} \setminus \{2,1\}', r'(-\infty,1)\cup(1,2)\cup(2,\infty)'),
    (r'\mathbb{R}', r'(-\infty,\infty)'),
  ],
)
def test_the_same_set(answer, reference):
  assert _same(answer, reference)


@pytest.mark.parametrize(
  ('answer', 'reference'),
  [
    (r'x \ge 3', r'(3,\infty)'),
    ('x < 3', r'(3,\infty)'),
    ('y > 3', 'x > 3'),
    ('[2,6)', '[2,6]'),
    (r'x \ne 3', r'\mathbb{R}'),
    (r'(2,\infty)', r'(2,\infty) \cup (-\infty,1)'),
  ],
)
def test_another_set(answer, reference):
  assert not _same(answer, reference)


@pytest.mark.parametrize(
  'text', ['5', 'x=5', '2x > 6', '(1,2,3)', 'x < y', 'x<1 or y>2', '1<x>2', '(']
)
def test_what_is_no_set_in_a_simple_form(text):
  assert read_set(canonical(text)) is None
