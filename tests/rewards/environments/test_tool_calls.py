import json

import pytest

from dppo_jax.rewards.environments import tool_calls


def _call(**fields):
  return f'{tool_calls.BEGIN}\n{json.dumps(fields)}\n{tool_calls.END}'


def test_the_first_call_is_found():
  message = f'I add. {_call(name="a", arguments={"x": 1})} {_call(name="b")}'
  assert tool_calls.find_call(message) == ('a', {'x': 1})
  assert tool_calls.find_call('The answer is 3.') is None
  assert tool_calls.find_call(tool_calls.END) is None


@pytest.mark.parametrize(
  ('message', 'told'),
  [
    (tool_calls.BEGIN, 'no </tool_call> within'),
    (tool_calls.BEGIN + ' ' * 10**6 + tool_calls.END, 'no </tool_call> within'),
    (f'{tool_calls.BEGIN}x{tool_calls.END}', 'no JSON'),
    (tool_calls.BEGIN + '[' * 4000 + tool_calls.END, 'no JSON'),
    (f'{tool_calls.BEGIN}3{tool_calls.END}', 'no object'),
    (_call(name='a'), 'no object'),
    (_call(name=3, arguments={}), 'no object'),
    (_call(name='a', arguments='x'), 'no object'),
  ],
)
def test_what_is_wrong_with_a_call_is_told(message, told):
  with pytest.raises(ValueError, match=told):
    tool_calls.find_call(message)
