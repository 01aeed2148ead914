"""Lists, brackets and relations, taken apart at their top level."""

from hypothesis import given
from hypothesis import strategies as st
import pytest

from dppo_jax.rewards.answers import parts
from dppo_jax.rewards.answers.parts import Group, Relation


@pytest.mark.parametrize(
  ('text', 'spaced', 'expected'),
  [
    ('1,2', False, ['1', '2']),
    ('1,200, 3', True, ['1,200', '3']),
    ('(1,2),[3,4)', False, ['(1,2)', '[3,4)']),
    (r'1, 2, \text{ and } 3', False, ['1', '2', '3']),
    (r'\frac{1,2}{3}', False, [r'\frac{1,2}{3}']),
    ('1 or 2', False, ['1', '2']),
    ('order', False, ['order']),
    ('', False, []),
  ],
)
def test_lists(text, spaced, expected):
  words = (',', 'and', 'or')
  assert parts.split(text, words, spaced=spaced) == expected


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('(1, 2]', Group('(', ']', '1, 2')),
    (r'\{1, 2\}', Group('{', '}', '1, 2')),
    (r'\langle 1, 2 \rangle', Group('(', ')', '1, 2')),
    ('(x+1)(x-1)', None),
    ('{1}', None),
    ('(', None),
    ('x', None),
  ],
)
def test_groups(text, expected):
  assert parts.read_group(text) == expected


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('x=5', Relation(('x', '5'), ('=',))),
    (r'1 \le x < 2', Relation(('1', 'x', '2'), ('<=', '<'))),
    (r'x \in [1,2]', Relation(('x', '[1,2]'), ('in',))),
    ('f(a=b)', None),
    ('x=', None),
    ('x)=5', None),
  ],
)
def test_relations(text, expected):
  assert parts.read_relation(text) == expected


def test_both_signs():
  assert parts.both_signs(r'2\pm x') == ['2+ x', '2- x']
  assert parts.both_signs(r'\pm 1 \mp 2') == ['+ 1 - 2', '- 1 + 2']
  assert parts.both_signs('2') == ['2']


@given(st.text(alphabet='([{}])\\,=<and or12', max_size=40))
def test_any_text_is_taken_apart_or_left(text):
  parts.split(text, (',', 'and', 'or'), spaced=False)
  parts.read_group(text)
  parts.read_relation(text)
