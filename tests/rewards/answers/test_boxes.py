"""Boxes beside, within and without braces, and those that hold nothing."""

import pytest

from dppo_jax.rewards.answers import boxes


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    (r'\boxed{3} and \boxed{8}', '3, 8'),
    (r'$\boxed{3}$, $\boxed{8}$, or $\boxed{9}$', '3, 8, 9'),
    (r'\boxed{3} \text{ and } \boxed{8}', '3, 8'),
    (r'x=\boxed{3} or x=\boxed{8}', '3, 8'),
    (r'\boxed{3}. Then \boxed{8}', '8'),
    (r'\boxed{3} no, \boxed{8}', '8'),
    (r'\boxed{3} and \boxed{3}', '3'),
    (r'\boxed{\fbox{3}}', '3'),
    (r'\boxed{$\boxed{3}$}', '3'),
    (r'\boxed{2 + \boxed{3}}', r'2 + \boxed{3}'),
    (r'\boxed 17', '17'),
    (r'\boxed 1/2.', '1/2'),
    (r'\boxed B.', 'B'),
    (r'\boxed Both', None),
    (r'\boxed{}', None),
    (r'\boxed{3} \boxed{', '3'),
  ],
)
def test_what_the_last_boxes_say(text, expected):
  assert boxes.last_boxed(text) == expected


@pytest.mark.parametrize(
  ('answer', 'expected'),
  [
    (r'$\boxed{17}$.', '17'),
    (r'The answer is \boxed{17}', '17'),
    (r'x = \boxed{17}', '17'),
    (r'\boxed{3} and \boxed{8}', '3, 8'),
    (r'8 or \boxed{17}', r'8 or \boxed{17}'),
    (r'x + \boxed{17}', r'x + \boxed{17}'),
    ('17', '17'),
    (r'\boxed{', r'\boxed{'),
  ],
)
def test_a_box_is_taken_out_where_it_is_all(answer, expected):
  assert boxes.unbox(answer) == expected


def test_braces_after_a_backslash_are_text():
  assert boxes.matching_brace(r'{\}\{}x', 0) == 5
  assert boxes.matching_brace('{{}', 0) == -1
