import json

import pytest

from dppo_jax.rewards.environments import table
from dppo_jax.rewards.environments.replies import reply_safely

_EXAMPLE = {'prompt': 'game 1 2 3 4 5 =', 'answer': '12'}
_HOSTILE = ['', ' ', '\0', '1' * 10**5, '(' * 10**5, '\ud800', '<eos>', '-1e9']


@pytest.mark.parametrize(
  'name', sorted(table.ENVIRONMENTS.keys() - table.LIBRARY)
)
def test_replies_are_pure_and_survive_any_message(name):
  environment = table.ENVIRONMENTS[name]
  for message in ['3', '12', *_HOSTILE]:
    state = None
    for _ in range(2):
      first = reply_safely(environment, message, state, _EXAMPLE, 5)
      sent = json.loads(json.dumps(state))  # As a worker has it.
      assert reply_safely(environment, message, sent, _EXAMPLE, 5) == first
      assert not first.reason.startswith('error')
      state = first.state
