from fractions import Fraction
import json

import pytest

from dppo_jax.rewards.environments.calculator import calculator, evaluate, show

_EXAMPLE = {'prompt': 'How many?', 'answer': '72 pencils are 6 dozen #### 72'}


def _ask(expression, name='calculator', state=None):
  call = {'name': name, 'arguments': {'expression': expression}}
  message = f'So:\n<tool_call>\n{json.dumps(call)}\n</tool_call>'
  return calculator(message, state, _EXAMPLE, 0)


def test_a_call_is_told_its_value():
  reply = _ask('8 * (4 + 5)', state=1)
  assert reply.text == '<tool_response>\n72\n</tool_response>'
  assert (reply.state, reply.reward, reply.malformed) == (2, None, False)


@pytest.mark.parametrize(
  ('expression', 'name', 'told'),
  [
    ('8 / 0', 'calculator', "Error: cannot evaluate '8 / 0'"),
    ('name("text")', 'calculator', 'Error: cannot evaluate'),
    ('9 ** 9', 'calculator', 'Error: cannot evaluate'),
    ('1' * 600, 'calculator', 'Error: more than 512 characters'),
    ('999999999999*' * 9 + '9', 'calculator', 'Error: the value has more'),
    (3, 'calculator', 'Error: the argument "expression" is missing'),
    ('1 + 1', 'search', "Error: no tool 'search'"),
  ],
)
def test_what_is_wrong_with_a_call_is_told_and_counted(expression, name, told):
  reply = _ask(expression, name)
  assert reply.text.startswith(f'<tool_response>\n{told}')
  assert (reply.reward, reply.malformed) == (None, True)


def test_a_call_without_an_end_is_told():
  reply = calculator('<tool_call>{"name"', None, _EXAMPLE, 0)
  assert (reply.reward, reply.malformed) == (None, True)


@pytest.mark.parametrize(
  ('message', 'expected'),
  [
    ('There are \\boxed{72}.', (1.0, 'right')),
    ('#### 72', (1.0, 'right')),
    ('So 72 pencils.', (1.0, 'right')),
    ('\\boxed{71}', (0.0, 'wrong')),
    ('I do not know.', (0.0, 'no_answer')),
    ('', (0.0, 'empty')),
  ],
)
def test_any_other_message_is_the_answer(message, expected):
  assert calculator(message, 2, _EXAMPLE, 0)[2:4] == expected


@pytest.mark.parametrize(
  ('expression', 'value'),
  [
    ('1,200*0.25', 300),
    ('2 × 3 ÷ 4 − 1', Fraction(1, 2)),
    ('-(1.5+0.25)', Fraction(-7, 4)),
    ('12,34', None),
    ('1.2.3', None),
    ('1 2', None),
    ('(' * 100 + '1' + ')' * 100, None),
    ('', None),
  ],
)
def test_values_are_exact(expression, value):
  if value is not None:
    assert evaluate(expression) == value
    return
  with pytest.raises(ValueError, match='cannot evaluate'):
    evaluate(expression)


@pytest.mark.parametrize(
  ('value', 'text'),
  [
    (Fraction(3), '3'),
    (Fraction(-5, 4), '-1.25'),
    (Fraction(2, 3), '0.666666666667'),
    (Fraction(1, 8 * 10**6), '0.000000125'),
    (Fraction(1, 3 * 10**12), '3.333333e-13'),
    (Fraction(10**20 + 1, 2), '50000000000000000000.5'),
  ],
)
def test_numbers_as_text(value, text):
  shown = show(value)
  assert abs(float(shown) / float(value) - 1) < 1e-6
  if abs(value) < 10**12:
    assert shown == text


@pytest.mark.parametrize(
  'message', ['<tool_call>' * 10**5, '9' * 10**6, '1,111' * 10**5]
)
def test_long_messages_are_read_in_linear_time(message):
  """Else this test takes hours."""
  assert calculator(message, None, _EXAMPLE, 0).reward != 1.0
