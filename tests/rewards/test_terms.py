"""A reward is a sum, read from one line of a config."""

import pytest

from dppo_jax.rewards.terms import Term, combine, parse_terms
from dppo_jax.rewards.verdicts import Verdict


def _parse(text, functions=False):
  return parse_terms('rewards.x', text, ('math', 'form'), functions=functions)


@pytest.mark.parametrize(
  ('text', 'terms'),
  [
    ('math', [(1.0, 'math')]),
    ('math + 0.1 * form', [(1.0, 'math'), (0.1, 'form')]),
    ('0.5*math + -1e-1*form', [(0.5, 'math'), (-0.1, 'form')]),
  ],
)
def test_sums(text, terms):
  assert _parse(text) == tuple(Term(*term) for term in terms)


def test_functions_of_the_user():
  terms = _parse('2 * mine.verify:act + form', functions=True)
  assert terms == (Term(2.0, 'mine.verify:act'), Term(1.0, 'form'))


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('maht', "unknown 'maht'; did you mean 'math'? Known: form, math."),
    ('', "unknown ''. Known"),
    ('math + ', "unknown ''"),
    ('math +form', "unknown 'math +form'"),
    ('mine:act', "unknown 'mine:act'"),
    ('x*math', "got the weight 'x'"),
    ('inf*math', "got the weight 'inf'"),
    ('nan*math', "got the weight 'nan'"),
    ('math + 2*math', "'math' occurs twice"),
  ],
)
def test_what_is_no_sum(text, message):
  with pytest.raises(ValueError, match=r'^rewards\.x: ') as caught:
    _parse(text)
  assert message in str(caught.value)


def test_rewards_are_weighed_and_the_first_gives_the_reason():
  terms = _parse('math + 0.5*form')
  found = combine(
    terms,
    [
      [Verdict(1.0, 'right'), Verdict(0.0, 'wrong')],
      [Verdict(0.0, 'malformed'), Verdict(1.0, 'right')],
    ],
  )
  assert found == [(1.0, 'right'), (0.5, 'wrong')]
