import pytest

from dppo_jax.rewards.environments import replies
from dppo_jax.rewards.environments.replies import Reply, reply_safely


def _of(result):
  def environment(message, state, example, seed):
    del message, state, example, seed
    if isinstance(result, BaseException):
      raise result
    return result

  return reply_safely(environment, 'm', None, {}, 0)


def test_what_goes_on_is_bounded():
  assert _of(('more', {'n': 1}, None, 'no matter')) == Reply(
    'more', {'n': 1}, None, ''
  )
  long = _of(('x' * 10**6, None, None, ''))
  assert (len(long.text), long.cut) == (replies.MAX_TEXT_LENGTH, True)
  assert _of(('\ud800', None, None, '')).text == '?'


def test_what_ends_has_a_finite_reward():
  assert _of(('unread', [1], 2, 'found')) == Reply('', None, 2.0, 'found')
  assert len(_of(('', None, 0.0, 'x' * 10**6)).reason) == 200


@pytest.mark.parametrize(
  ('result', 'reason'),
  [
    (KeyError('no such row'), "error: KeyError: 'no such row'"),
    (MemoryError(), 'memory'),
    ((), 'error: TypeError: '),
    (None, 'error: TypeError: '),
    ((3, None, None, ''), 'error: TypeError: a text of type int'),
    (('', None, 'high', ''), 'error: TypeError: a reward of type str'),
    (('', None, float('nan'), ''), 'error: ValueError: reward nan is not'),
    (('', {1, 2}, None, ''), 'error: TypeError: '),
    (('', 'x' * 10**6, None, ''), 'error: ValueError: a state of more than'),
  ],
)
def test_what_fails_ends_with_nothing(result, reason):
  reply = _of(result)
  assert reply[:3] == ('', None, 0.0)
  assert reply.reason.startswith(reason)
