"""An object like OpenEnv's, which changes as it is stepped."""

import random
import types

import pytest

from dppo_jax.rewards.environments import openenv
from dppo_jax.rewards.environments.replies import Reply, end, reply_safely


class _Game:
  """Find a number below 8 that the seed chooses; a wrong guess costs .1."""

  closed = 0

  def __init__(self):
    self.count = 0

  def reset(self, seed=None, episode_id=None):
    del episode_id
    self.wanted = random.Random(seed).randrange(8)
    return types.SimpleNamespace(done=False, reward=None, hint='')

  def step(self, action):
    self.count += 1
    found = action == self.wanted
    hint = f'{self.count}: {"more" if action < self.wanted else "less"}'
    reward = 1.0 if found else -0.1
    return types.SimpleNamespace(done=found, reward=reward, hint=hint)

  def close(self):
    _Game.closed += 1


_WANTED = random.Random(5).randrange(8)
_PLAY = openenv.adapt(_Game, int, lambda seen: seen.hint)


def _talk(*messages, play=_PLAY):
  state, replies = None, []
  for message in messages:
    replies.append(reply_safely(play, message, state, {}, 5))
    state = replies[-1].state
  return replies


def test_an_object_that_changes_is_a_pure_function():
  assert 0 < _WANTED < 7
  before = _Game.closed
  first, second, last = _talk('7', '0', str(_WANTED))
  assert (first.text, second.text) == ('1: less', '2: more')
  assert second.state == [['7', '1: less'], ['0', '2: more']]
  assert last == end(pytest.approx(0.8), 'done')
  assert _Game.closed - before == 3
  assert _talk('7', '0') == [first, second]


def test_what_is_no_action_is_told_and_counted():
  first, told, second = _talk('7', 'seven', '0')
  assert told.text.startswith('Error: invalid literal')
  assert told.malformed
  assert told.state == first.state
  assert second.text == '2: more'


def test_an_environment_that_is_not_a_function_of_its_seed_is_an_error():
  count = iter(range(9))
  play = openenv.adapt(_Game, int, lambda seen: f'{next(count)}')
  _, second = _talk('7', '0', play=play)
  assert (second.reward, second.reason) == (
    0.0,
    'error: ValueError: another reply to the same messages and seed',
  )


def test_the_example_may_choose_the_seed():
  play = openenv.adapt(
    _Game,
    int,
    lambda seen: seen.hint,
    lambda environment, example, seed: environment.reset(example['seed']),
  )
  reply = Reply(*play(str(_WANTED), None, {'seed': 5}, 99))
  assert reply == end(1.0, 'done')


@pytest.mark.parametrize(
  ('reset', 'seed'),
  [
    (lambda: None, None),
    (lambda seed: seed, 3),
    (lambda **kwargs: kwargs['seed'], 3),
  ],
)
def test_a_reset_is_given_the_seed_it_takes(reset, seed):
  environment = types.SimpleNamespace(reset=reset)
  assert openenv.reset_with_seed(environment, {}, 3) == seed
