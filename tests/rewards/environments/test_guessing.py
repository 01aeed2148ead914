import pytest

from dppo_jax.rewards.environments.guessing import guessing


@pytest.mark.parametrize(
  ('message', 'expected'),
  [
    ('3', ('higher', None, None, '')),
    (' 9 ', ('lower', None, None, '')),
    ('7', ('', None, 1.0, 'right')),
    ('7 7', ('', None, 0.0, 'malformed')),
    ('', ('', None, 0.0, 'malformed')),
    ('higher', ('', None, 0.0, 'malformed')),
    ('\u0667', ('', None, 0.0, 'malformed')),  # A digit that no token spells.
    ('9' * 5000, ('', None, 0.0, 'malformed')),  # int() would refuse it.
  ],
)
def test_a_guess_is_told_where_to_go(message, expected):
  assert guessing(message, None, {'answer': '7'}, 0)[:4] == expected
