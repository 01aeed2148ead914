import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import Batch, Decisions, TokenStats
from dppo_jax.learner.metrics import trust_region_metrics
from dppo_jax.ops import trust_regions
from tests.support import factories

# One prompt column, then three completion columns, the last of row 1 unused.
_MU = [[0.9, 0.05, 0.5], [0.8, 0.25, 0.6]]
_PI = [[0.3, 0.10, 0.5], [0.9, 0.75, 0.1]]
_KEEP = [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
_DIVERGENCE = [[0.6, 0.05, 0.0], [0.1, 0.5, 9.0]]
_MASK = [[True, True, True], [True, True, False]]


@pytest.fixture
def batch():
  def with_prompt(values, prompt):
    return jnp.asarray(np.insert(np.asarray(values), 0, prompt, axis=1))

  return Batch(
    tokens=jnp.zeros((2, 4), jnp.int32),
    token_mask=with_prompt(_MASK, True),
    completion_mask=with_prompt(_MASK, False),
    # Row 0 is bad, row 1 good; what stands on the prompt must not count.
    advantages=with_prompt([[-1.0] * 3, [2.0, 2.0, -2.0]], -5.0),
    rollout=TokenStats(log_probs=with_prompt(np.log(_MU), -9.0)),
  )


@pytest.fixture
def decisions():
  return Decisions(
    log_probs=jnp.log(jnp.array(_PI)),
    divergence=jnp.array(_DIVERGENCE),
    keep=jnp.array(_KEEP),
    diagnostics={},
  )


def test_metrics_by_hand(batch, decisions):
  metrics = trust_region_metrics(batch, decisions, num_minibatches=2)
  # pi - mu of the five tokens: -.6, .05, 0; .1, .5.
  expected = {
    'trust_region/fraction_masked': 3 / 5,
    'trust_region/mean_dropped_weight': 3 / 5,
    'trust_region/fraction_masked_negative': 2 / 5,
    'trust_region/fraction_masked_positive': 1 / 5,
    'trust_region/fraction_masked_rare': 1 / 5,
    'trust_region/divergence_mean': (0.6 + 0.05 + 0.1 + 0.5) / 5,
    'trust_region/divergence_max': 0.6,
    'trust_region/bad_updates': 1 / 5,
    'mismatch/mean_abs': (0.6 + 0.05 + 0.1 + 0.5) / 5,
    'mismatch/max': 0.5,
    'mismatch/min': -0.6,
    'mismatch/first_update_mean_abs': 0.65 / 3,
    'ratio/mean': (1 / 3 + 2 + 1 + 9 / 8 + 3) / 5,
    'ratio/max': 3.0,
  }
  assert {name: float(value) for name, value in metrics.items()} == {
    name: pytest.approx(value, abs=1e-6) for name, value in expected.items()
  }


def test_diagnostics_of_the_rule_are_means_over_tokens(batch, decisions):
  values = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 99.0]])
  decisions = dataclasses.replace(decisions, diagnostics={'rule/spent': values})
  metrics = trust_region_metrics(batch, decisions, num_minibatches=1)
  assert float(metrics['rule/spent']) == pytest.approx(3.0)


def test_one_minibatch_is_all_of_them(batch, decisions):
  metrics = trust_region_metrics(batch, decisions, num_minibatches=1)
  assert float(metrics['mismatch/first_update_mean_abs']) == pytest.approx(
    float(metrics['mismatch/mean_abs'])
  )


def test_a_fall_of_one_half_is_a_bad_update(batch, decisions):
  """Of the probability itself, and only where A < 0."""
  moved = jnp.array([[0.39, 0.05, 0.01], [0.2, 0.25, 0.1]])
  decisions = dataclasses.replace(decisions, log_probs=jnp.log(moved))
  metrics = trust_region_metrics(batch, decisions, num_minibatches=1)
  # .9 -> .39 counts; .5 -> .01 falls short; .8 -> .2 has A > 0.
  assert float(metrics['trust_region/bad_updates']) == pytest.approx(1 / 5)


def test_padding_may_hold_anything(batch, decisions):
  metrics = trust_region_metrics(batch, decisions, num_minibatches=2)
  broken = dataclasses.replace(
    decisions,
    log_probs=decisions.log_probs.at[1, 2].set(jnp.nan),
    divergence=decisions.divergence.at[1, 2].set(jnp.nan),
  )
  again = trust_region_metrics(batch, broken, num_minibatches=2)
  for name, value in metrics.items():
    assert float(again[name]) == float(value), name


def test_routers_are_averaged_over_what_was_run_together(batch, decisions):
  router = {'router/entropy': jnp.array([1.0, 2.0])}
  decisions = dataclasses.replace(decisions, router=router)
  metrics = trust_region_metrics(batch, decisions, num_minibatches=2)
  assert float(metrics['router/entropy']) == 1.5


@pytest.mark.parametrize('rule', ['sapo', 'cppo_soft'])
def test_a_token_that_is_weighed_is_not_masked(rule):
  """After a drift of a thousandth SAPO weighs most tokens and masks none."""
  rng = np.random.default_rng(0)
  mu = np.log(rng.uniform(0.05, 0.99, (8, 32))).astype(np.float32)
  pi = mu + 0.3 * rng.normal(size=mu.shape).astype(np.float32)
  advantages = np.repeat(rng.choice([-0.5, 0.5], (8, 1)), 32, 1)
  mask = np.ones(mu.shape, bool)
  divergence = np.abs(np.exp(pi) - np.exp(mu))
  signals = trust_regions.Signals(
    advantages=jnp.asarray(advantages, jnp.float32),
    log_probs=jnp.asarray(pi),
    anchor_log_probs=jnp.asarray(mu),
    divergence=jnp.asarray(divergence),
    mask=jnp.asarray(mask),
  )
  keep = trust_regions.keep_weights(
    rule, signals, factories.bounds(delta_low=0.05, delta_high=0.05)
  )
  weights = np.asarray(keep, np.float64)
  assert ((weights > 0) & (weights < 1)).mean() > 0.1
  batch = Batch(
    tokens=jnp.zeros(mu.shape, jnp.int32),
    token_mask=mask,
    completion_mask=mask,
    advantages=advantages,
    rollout=TokenStats(log_probs=mu),
  )
  decisions = Decisions(
    log_probs=pi, divergence=divergence, keep=keep, diagnostics={}
  )
  metrics = trust_region_metrics(batch, decisions, 1)
  assert float(metrics['trust_region/fraction_masked']) == 0.0
  assert float(metrics['trust_region/mean_dropped_weight']) == pytest.approx(
    (1 - weights).mean(), rel=1e-4
  )


def test_masked_shares_by_turn(batch, decisions):
  turn = jnp.array([[0, 1, 1, 3], [0, 1, 3, 0]])
  batch = dataclasses.replace(batch, turn=turn)
  metrics = trust_region_metrics(batch, decisions, 1, max_turns=3)
  shares = [
    float(metrics[f'trust_region/fraction_masked_turn_{k}']) for k in (1, 2, 3)
  ]
  assert shares == [1.0, 0.0, 0.0]
  none = trust_region_metrics(
    dataclasses.replace(batch, turn=None), decisions, 1
  )
  assert not any('turn' in name for name in none)
