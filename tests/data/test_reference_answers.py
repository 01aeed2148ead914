import pytest

from dppo_jax.data import reference_answers


@pytest.mark.parametrize(
  ('solution', 'answer'),
  [
    (r'\boxed{5}', '5'),
    (r'\boxed{1} and then \boxed{\frac{1}{2}}.', r'\frac{1}{2}'),
    (r'$\boxed{\{1, 2\}}$', r'\{1, 2\}'),
    (r'\boxed{a \\}', r'a \\'),
    (r'\fbox{7}', '7'),
    (r'$\boxed 7$', '7'),
    (r'\boxed { x^{2^{3}} } }', 'x^{2^{3}}'),
    (r'\boxed{' + '{' * 5000 + '}' * 5000 + '}', '{' * 5000 + '}' * 5000),
  ],
)
def test_the_last_box_is_the_answer(solution, answer):
  assert reference_answers.last_boxed(solution) == answer


@pytest.mark.parametrize(
  ('solution', 'match'),
  [
    ('5', r'no \\boxed'),
    (r'\boxed{5', 'closing brace'),
    (r'\boxed{' + '{' * 100_000, 'closing brace'),
    (r'\boxed{ }', 'an empty'),
    (r'\boxed', 'an empty'),
    ('x' * (reference_answers.MAX_SOLUTION_LENGTH + 1), 'characters'),
  ],
)
def test_a_solution_without_a_box_is_refused(solution, match):
  with pytest.raises(ValueError, match=match):
    reference_answers.last_boxed(solution)


@pytest.mark.parametrize(
  ('text', 'answer'),
  [
    ('025', '25'),
    (' 7 ', '7'),
    (r'336^\circ', '336'),
    (r'$336^{\circ}$', '336'),
    ('336°', '336'),
    ('336 degrees', '336'),
  ],
)
def test_whole_numbers_with_the_unit_of_an_angle(text, answer):
  assert reference_answers.integer(text) == answer


@pytest.mark.parametrize('text', ['', 'x', '-3', '2.5', '3 apples', '3^2'])
def test_what_is_no_whole_number(text):
  with pytest.raises(ValueError, match='is not a whole number'):
    reference_answers.integer(text)


def test_numbers_units_and_formulas():
  assert reference_answers.number('8.0') == '8'
  assert reference_answers.number('8.05') == '8.05'
  assert reference_answers.without_units('1/4 (pieces)') == '1/4'
  assert reference_answers.without_units('12 (girls); 9 (boys)') == '12, 9'
  assert reference_answers.without_units('-(1/3)') == '-1/3'
  assert reference_answers.without_units('8 (ft); (2.5) (sq. ft)') == '8, 2.5'
  with pytest.raises(ValueError, match='outside parentheses'):
    reference_answers.without_units('(apples)')
  assert reference_answers.without_dollars(' $x$ ') == 'x'
  assert reference_answers.without_dollars('$x$, $y$') == '$x$, $y$'
  assert reference_answers.letter('0') == 'A'
  assert reference_answers.letter('(d)') == 'D'
  with pytest.raises(ValueError, match='no letter'):
    reference_answers.letter('none')


def test_hashes():
  assert (
    reference_answers.after_hashes('1 #### 2\n#### -3,456,789.5 ')
    == '-3456789.5'
  )
  assert reference_answers.after_hashes('#### 1,20') == '1,20'
  for solution in ('5', '1 ####  '):
    with pytest.raises(ValueError, match='no answer after'):
      reference_answers.after_hashes(solution)


def test_integers():
  assert reference_answers.integer(' 025 ') == '25'
  assert reference_answers.integer('0') == '0'
  for text in ('2.5', '-3', '', '9' * 30, '²'):
    with pytest.raises(ValueError, match='not a whole number'):
      reference_answers.integer(text)
