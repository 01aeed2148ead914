"""What is decided without sympy, and what it is asked."""

import pytest

from dppo_jax.rewards.answers import cost, matching
from dppo_jax.rewards.answers.spelling import canonical


def _judge(answer, reference, says=False):
  """The verdict, and what was asked on the way."""
  asked = []

  def equivalent(first, second):
    asked.append((first, second))
    # None: as sympy would, of sums in another order.
    return sorted(first) == sorted(second) if says is None else says

  def same_relation(first, second, ordered):
    asked.append((first, second, ordered))
    return says

  questions = matching.FormulaComparisons(equivalent, same_relation)
  found = matching.same_answer(
    canonical(answer), canonical(reference), lambda: questions
  )
  return found, asked


@pytest.mark.parametrize(
  ('answer', 'reference', 'expected'),
  [
    ('1 1/2', '1', False),
    ('1 1/2', '3/2', True),
    ('3 7', '37', False),
    ('3,5', '3,3,5', False),
    ('5,3,3', '3,3,5', True),
    ('25 and 130', '25,130', True),
    ('1 or 2 or 3', '2', False),
    ('(2,1)', '(1,2)', False),
    ('C. 42', 'C', True),
    ('C or D', 'C', False),
    ('2', '2t', False),
    ('0=1', r'\log_3(81)=4', False),
    ('x>3', r'(3,\infty)', True),
    ('1101_3', '1101_2', False),
    ('east', 'seat', False),
    ('$.$', '$', False),
  ],
)
def test_what_is_decided_exactly_asks_nothing(answer, reference, expected):
  found, asked = _judge(answer, reference, says=not expected)
  assert not asked
  assert found is expected


def test_formulas_with_the_same_letters_are_asked_about():
  assert _judge('1+x', 'x+1', says=True) == (True, [('1+x', 'x+1')])
  assert _judge('1+x', 'x+1') == (False, [('1+x', 'x+1')])
  assert _judge('1+y', 'x+1', says=True) == (False, [])


def test_relations_are_asked_about_as_wholes():
  found, asked = _judge('f(5)=8', 'f(5)=2')
  assert not found
  assert asked[-1] == (('f(5)', '8'), ('f(5)', '2'), False)
  assert _judge('2x < 6', '6 > xx', says=True)[0]
  assert _judge('2x=6', '3y=9', says=True) == (False, [])


def test_an_endless_sum_is_asked_about_only_where_the_reference_has_one():
  text = r'\sum_{k=1}^{n} k'
  assert _judge(text, 'n k', says=True) == (False, [])
  assert _judge(text, r'\sum_{k=1}^{n} k + 0', says=True)[0]


@pytest.mark.parametrize('answer', ['2^{10}', '(3!)!', '{1', '2^2^2'])
def test_the_dear_is_not_computed(monkeypatch, answer):
  monkeypatch.setattr(cost, 'MAX_BITS', 8.0)
  with pytest.raises(matching.IntractableError):
    _judge(answer, '1000', says=True)
  assert _judge('2^3', '1000') == (False, [('2^3', '1000')])


def test_a_long_list_is_not_compared_for_ever():
  many = ','.join(f'x+{i}' for i in range(30))
  other = ','.join(f'x-{i}' for i in range(30))
  found, asked = _judge(many, other)
  assert not found
  assert len(asked) <= matching.MAX_COMPARISONS
  with pytest.raises(matching.IntractableError):
    _judge(many, ','.join(f'{i}+x' for i in reversed(range(30))), says=None)
  assert not _judge(','.join('1' * 200), ','.join('2' * 200))[0]
