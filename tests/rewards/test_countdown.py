"""Countdown by a parser: the rules of the game, and nothing else."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
import pytest

from dppo_jax.rewards import countdown

_EXAMPLE = {'numbers': [3, 5, 6, 3], 'target': 24}


def test_numbers_by_their_published_name():
  example = {'target': 24, 'nums': [4, 6]}
  assert countdown.countdown('4 * 6', example).reward == 1.0
  assert countdown.countdown('4 + 6', example).reward == 0.0


@pytest.mark.parametrize(
  ('example', 'problem'),
  [
    ({'target': '24', 'numbers': [4, 6]}, None),
    ({'target': 24.0, 'nums': ['4', '6']}, None),
    ({'answer': '24', 'nums': [4]}, "reads the field 'target'"),
    ({'target': 24}, "reads the field 'numbers', or 'nums'"),
    ({'target': 'x', 'nums': [4]}, 'reads a number'),
    ({'target': [24], 'nums': [4]}, 'reads a number'),
    ({'target': 24, 'nums': []}, 'reads a number'),
    ({'target': 24, 'nums': 'four'}, 'reads a number'),
    ({'target': 24, 'nums': None}, 'reads a number'),
  ],
)
def test_examples_that_nothing_could_be_right_for(example, problem):
  found = countdown.find_problem(example)
  assert found == problem or (problem and found.startswith(problem))


@pytest.mark.parametrize(
  ('answer', 'reason', 'subset'),
  [
    ('(3 + 5) * (6 - 3)', 'right', 'right'),
    ('(3+5)*(6-3) = 24', 'right', 'right'),
    (r'$(3 + 5) \times (6 - 3)$', 'right', 'right'),
    ('(3 + 5) × (6 − 3)', 'right', 'right'),
    ('(3+5)*(6-3) = 25', 'wrong', 'wrong'),
    ('3*3*(6/5)', 'wrong', 'wrong'),
    ('(5 + 3) * 3', 'wrong_numbers', 'right'),
    ('24', 'wrong_numbers', 'wrong_numbers'),
    ('3 * 3 * 3 - 3', 'wrong_numbers', 'wrong_numbers'),
    ('3 + 5 + 6 + 3 + 7', 'wrong_numbers', 'wrong_numbers'),
    ('(3 + 5) * (6 - 3', 'malformed', 'malformed'),
    ('(3 + 5) (6 - 3)', 'malformed', 'malformed'),
    ('3 ** 5', 'malformed', 'malformed'),
    ('3 // 5', 'malformed', 'malformed'),
    ('3 / (5 - 5)', 'malformed', 'malformed'),
    ('3 +', 'malformed', 'malformed'),
    ('', 'malformed', 'malformed'),
    ('= 24', 'malformed', 'malformed'),
    ('(3+5)*(6-3) = 24 = 24', 'malformed', 'malformed'),
    ('3.0 + 5', 'malformed', 'malformed'),
    ('3 ^ 5', 'malformed', 'malformed'),
    ('abs((3 + 5) * (6 - 3))', 'malformed', 'malformed'),  # 24, to Python.
    ('[(3 + 5) * (6 - 3)][0]', 'malformed', 'malformed'),
    ('٣ + 5', 'malformed', 'malformed'),
    ('1' * 13, 'malformed', 'malformed'),
    ('3+' * 300, 'too_long', 'too_long'),
  ],
)
def test_verdicts(answer, reason, subset):
  assert countdown.countdown(answer, _EXAMPLE).reason == reason
  assert countdown.countdown_subset(answer, _EXAMPLE).reason == subset


def test_nesting_is_bounded(monkeypatch):
  monkeypatch.setattr(countdown, 'MAX_DEPTH', 2)
  assert countdown.countdown_subset('((3))', _EXAMPLE).reason == 'wrong'
  assert countdown.countdown_subset('(((3)))', _EXAMPLE).reason == 'malformed'


def test_targets_may_be_text_and_fractions():
  example = {'numbers': ['3', '4'], 'target': '3/4'}
  assert countdown.countdown('3 / 4', example).reward == 1.0


@pytest.mark.parametrize(
  ('text', 'value'),
  [
    ('2 - 3 - 4', -5),
    ('2 - (3 - 4)', 3),
    ('8 / 4 / 2', 1),
    ('2 + 3 * 4', 14),
    ('2 * 3 + 4', 10),
    ('-2 * 3', -6),
    ('2 * -3', -6),
    ('-(2 + 3)', -5),
    ('1 / 3 * 3', 1),
  ],
)
def test_values(text, value):
  assert countdown.evaluate(text)[0] == value


_EXPRESSIONS = st.recursive(
  st.integers(0, 99).map(str),
  lambda inner: st.tuples(inner, st.sampled_from('+-*/'), inner).map(
    lambda parts: f'({parts[0]} {parts[1]} {parts[2]})'
  ),
  max_leaves=12,
)


@given(_EXPRESSIONS)
def test_it_agrees_with_python(text):
  wrapped = ''.join(
    f'Fraction({token})' if token.isdigit() else token
    for token in countdown._tokenize(text)
  )
  try:
    # Ours, not a model's.
    expected = eval(wrapped, {'Fraction': Fraction})
  except ZeroDivisionError:
    with pytest.raises(ValueError, match='zero'):
      countdown.evaluate(text)
  else:
    assert countdown.evaluate(text)[0] == expected
