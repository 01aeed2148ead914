import pytest

from dppo_jax.runtime.config.checks.trust_region import (
  rule_problems,
  trust_region_problems,
)
from tests.support import runs


def _problems(**overrides):
  settings = runs.config(**overrides).to_dict()
  return [*trust_region_problems(settings), *rule_problems(settings)]


def test_the_default_has_none():
  assert _problems() == []


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (
      dict(sampling__top_k=0),
      "trust_region.divergence: 'topk_tv' reads the top-K log-probs and"
      " sampling.top_k=0 records none; set it to 20, or use 'binary_tv'",
    ),
    (
      dict(trust_region__delta_low=1.5),
      "trust_region.delta_low: got 1.5; 'topk_tv' is a probability",
    ),
    (
      dict(trust_region__rule='gspo', trust_region__advantage_sign='negative'),
      "trust_region.advantage_sign: got 'negative'; rule 'gspo' decides on",
    ),
    (
      dict(trust_region__rule='cppo_soft', trust_region__delta_high=0.0),
      "trust_region.delta_high: got 0.0; rule 'cppo_soft' divides by it",
    ),
    (
      dict(trust_region__divergence='certified_tv', trust_region__rule='cppo'),
      "trust_region.divergence: 'certified_tv' decides D > delta and nothing",
    ),
    (
      dict(
        trust_region__divergence='certified_tv',
        trust_region__direction='predictive',
      ),
      "trust_region.direction: got 'predictive', which needs the rate of every",
    ),
    (
      dict(trust_region__divergence='certified_tv', sampling__top_k=0),
      "trust_region.divergence: 'certified_tv' bounds D by the top-K log-probs",
    ),
    (
      dict(objective__ratio_floor=2.0, objective__ratio_cap=1.0),
      'objective.ratio_floor: got 2.0; at most objective.ratio_cap=1.0.',
    ),
  ],
)
def test_what_does_not_go_together_is_named(overrides, message):
  (problem,) = _problems(**overrides)
  assert problem.startswith(message)


def test_a_bound_in_nats_may_exceed_one():
  assert (
    _problems(trust_region__divergence='topk_kl', trust_region__delta_low=1.5)
    == []
  )
