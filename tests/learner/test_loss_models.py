"""The loss of a model: what its prompts share, and its experts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import TokenStats
from dppo_jax.learner import loss as loss_lib
from dppo_jax.models.policy import make_policy
from tests.support import factories


def _without_top_k(batch):
  """What a model does to a loss does not depend on what else is measured."""
  stats = TokenStats(log_probs=batch.rollout.log_probs)
  return dataclasses.replace(batch, rollout=stats)


@pytest.mark.slow
def test_sharing_prompts_changes_no_gradient():
  """A prompt run once for its group, or once for each of its rows."""
  # Small weights: the rounding of large ones alone comes near the bound.
  config = factories.transformer_config(init_scale=0.1)
  policy, params = make_policy(config), factories.make_params(config)
  batch = _without_top_k(factories.make_batch(3, 4, 5, 4))
  results = []
  for shared_rows in (1, 4):
    loss_fn = functools.partial(
      loss_lib.policy_loss,
      policy,
      factories.vocabulary_config(),
      factories.loss_config(shared_rows=shared_rows, divergence='binary_tv'),
    )
    weights = jnp.full((12, 4), 1 / 48)
    differentiate = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    results.append(differentiate(params, batch, weights))
  ((alone, _), gradient), ((shared, _), shared_gradient) = results
  assert float(shared) == pytest.approx(float(alone), rel=1e-5)
  assert factories.relative_distance(shared_gradient, gradient) <= 1e-6


@pytest.fixture(scope='module')
def balanced():
  """(shared rows, coefficient, seed) -> ((loss, decisions), gradient).

  Routes are replayed, those of the seed.
  """
  config = factories.moe_config(num_layers=2, init_scale=0.1)
  policy, params = make_policy(config), factories.make_params(config)
  batch = _without_top_k(factories.make_batch(3, 4, 5, 4))

  def routes(seed):
    rng = np.random.default_rng(seed)
    drawn = np.argsort(rng.random((*batch.tokens.shape, 2, 6)), -1)[..., :2]
    # The prompt's routes are those of its group.
    drawn[:, :5] = np.repeat(drawn[::4, :5], 4, axis=0)
    return drawn.astype(np.uint8)

  @functools.cache
  def program(shared_rows, coefficient):
    loss_fn = functools.partial(
      loss_lib.policy_loss,
      policy,
      factories.vocabulary_config(),
      factories.loss_config(
        shared_rows=shared_rows,
        load_balance_coefficient=coefficient,
        divergence='binary_tv',
      ),
    )
    return jax.jit(
      jax.value_and_grad(loss_fn, has_aux=True),
      compiler_options={'xla_backend_optimization_level': 0},
    )

  def differentiate(shared_rows, coefficient, seed=5):
    used = dataclasses.replace(batch, routes=routes(seed))
    run = program(shared_rows, coefficient)
    return run(params, used, jnp.full((12, 4), 1 / 48))

  return differentiate


@pytest.mark.slow
def test_the_load_balance_is_added_by_its_coefficient(balanced):
  (plain, decisions), gradient = balanced(4, 0.0)
  (loss, _), with_balance = balanced(4, 0.5)
  imbalance = decisions.router['router/load_balance']
  assert imbalance.shape == (12,)
  np.testing.assert_array_equal(imbalance, imbalance[0])
  assert float(loss - plain) == pytest.approx(
    0.5 * float(imbalance[0]), rel=1e-4
  )
  moved = jax.tree.map(lambda a, b: a - b, with_balance, gradient)
  assert np.abs(moved['layers']['mlp']['router']['kernel']).max() > 1e-5


@pytest.mark.slow
def test_sharing_prompts_balances_alike(balanced):
  ((alone, one), gradient) = balanced(1, 0.5)
  ((shared, other), shared_gradient) = balanced(4, 0.5)
  assert float(shared) == pytest.approx(float(alone), rel=1e-5)
  assert factories.relative_distance(shared_gradient, gradient) <= 1e-5
  for name, values in one.router.items():
    np.testing.assert_allclose(other.router[name], values, rtol=1e-5)


def test_replayed_routes_decide_which_experts_learn(balanced):
  (one, _), gradient = balanced(4, 0.5)
  (other, _), other_gradient = balanced(4, 0.5, seed=6)
  assert float(one) != float(other)
  assert factories.relative_distance(other_gradient, gradient) > 1e-2
