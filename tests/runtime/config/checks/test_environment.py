"""What does not go with conversations is said, with its path."""

import pytest

from dppo_jax.runtime.config.checks import environment
from tests.support import runs


def _find(**overrides):
  fine = dict(environment__name='guessing', rewards__verifier='none')
  settings = runs.config(**{**fine, **overrides})
  return list(environment.find_problems(settings.to_dict()))


def test_a_fine_section_has_no_problems():
  assert _find() == _find(sampling__lag=1) == []
  assert _find(environment__name='', rewards__verifier='numeric') == []


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (dict(environment__name='gues'), "environment.name: unknown 'gues'; did"),
    (dict(environment__name='a:b'), 'rewards.num_workers: got 0 for'),
    (dict(rewards__verifier='numeric'), "rewards.verifier: got 'numeric'"),
    (
      dict(environment__name='reasoning_gym', rewards__num_workers=1),
      "environment.name: 'reasoning_gym' scores items of reasoning-gym; set",
    ),
    (dict(rewards__model='folder'), "rewards.model: got 'folder'"),
    (dict(sampling__cache_columns=8), 'sampling.cache_columns: got 8'),
    (dict(sampling__stop_strings=('.',)), "sampling.stop_strings: got ('.',)"),
    (dict(environment__max_turn_length=99), 'environment.max_turn_length: got'),
  ],
)
def test_what_does_not_go_with_it_is_named(overrides, message):
  (problem,) = _find(**overrides)
  assert problem.startswith(message)


def test_the_rewards_are_its_own():
  settings = runs.config(environment__name='guessing', rewards__verifier='none')
  assert runs.experiment(settings).environment.name == 'guessing'
  with pytest.raises(ValueError, match=r'^rewards\.verifier: got .none.'):
    runs.experiment(runs.config(rewards__verifier='none'))
