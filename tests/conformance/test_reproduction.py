"""Distances from a threshold, and what f32 resolves, at hand-made tokens."""

import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.conformance import authors, reproduction
from dppo_jax.conformance.golden import Inputs

_TV = authors.Result('stable_rl', 'dppo_binary_tv', 'mask', 'rollout')
_RELAXED = _TV._replace(mode='ppo_ablation_negative')
_KL = _TV._replace(mode='dppo_binary_kl')


def _measured(mu, pi, advantage):
  """One row of tokens of probability mu and pi, in a vocabulary of two."""
  mu, pi = np.array([mu], np.float64), np.array([pi], np.float64)
  log_mu, log_pi = (
    np.log(np.stack([p, 1 - p], -1)).astype(np.float32) for p in (mu, pi)
  )
  tokens = np.zeros(mu.shape, np.int32)
  return reproduction.measure(
    Inputs(
      mu_logits=log_mu,
      old_logits=log_mu,
      pi_logits=log_pi,
      tokens=tokens,
      advantages=np.full(mu.shape, advantage, np.float32),
      mask=np.ones(mu.shape, np.float32),
      rollout_log_probs=log_mu[..., 0],
      old_log_probs=log_mu[..., 0],
      log_probs=log_pi[..., 0],
      topk_ids=tokens[..., None],
      topk_log_probs=log_mu[..., :1],
      topk_kl=np.zeros(mu.shape, np.float32),
      topk_tv=np.zeros(mu.shape, np.float32),
    )
  )


def test_distance_from_a_divergence_bound():
  moves = np.array([0.15 + 3e-7, 0.15 - 8e-8, 0.15 + 5e-6, 0.0, -0.3])
  measured = _measured([0.4] * 5, 0.4 + moves, advantage=1.0)
  keep = np.asarray(reproduction.decide(_TV, measured))
  np.testing.assert_array_equal(keep, [[0, 1, 0, 1, 1]])
  found = reproduction.distance(_TV, measured, 1 - keep)
  assert 3e-7 <= found[0, 0] <= 5e-7
  assert 5e-8 <= found[0, 1] <= 2e-7
  # Beyond; at pi = mu far from the bound; and far from it toward mu.
  assert np.isinf(found[0, 2:]).all()


def test_distance_from_an_exemption():
  measured = _measured([0.1 + 2e-7, 0.11], [0.05, 0.05], advantage=-1.0)
  found = reproduction.distance(_RELAXED, measured, np.ones((1, 2)))
  assert found[0, 0] <= 5e-7
  assert np.isinf(found[0, 1])


def test_an_exemption_that_is_off_stays_off():
  measured = _measured([1e-7], [1e-8], advantage=-1.0)
  result = _TV._replace(mode='ppo')
  np.testing.assert_array_equal(reproduction.decide(result, measured), [[0]])
  assert np.isinf(reproduction.distance(result, measured, np.ones((1, 1))))


def test_certainty_is_a_matter_of_rounding():
  # At pi = 1 - 6e-8 the last bit of a log-prob decides 1 - pi.
  measured = _measured([0.9955, 0.5], [1 - 1e-9, 0.9], advantage=1.0)
  found = jnp.stack(reproduction.decide_rounded(_KL, measured))
  np.testing.assert_array_equal(
    jnp.min(found, 0) != jnp.max(found, 0), [[True, False]]
  )


@pytest.mark.parametrize('mode', ['dppo_binary_tv', 'pg_no_mask'])
def test_loss_and_gradient_by_hand(mode):
  measured = _measured([0.5, 0.2], [0.9, 0.1], advantage=2.0)
  result = _TV._replace(mode=mode, kind='loss', ratio_cap=1.5)
  keep = reproduction.decide(result, measured)
  loss = reproduction.loss_of(result, measured, keep)
  # First token: r = 1.8 capped, masked by TV; the second moves toward mu.
  first = 0.0 if mode == 'dppo_binary_tv' else 1.5
  coefficients = np.array([first, 0.5]) * 2.0 / 2
  expected = -(coefficients * np.log([0.9, 0.1])).sum()
  np.testing.assert_allclose(loss.value, expected, rtol=1e-6)
  sampled = -coefficients * np.array([0.1, 0.9])  # 1 - pi.
  np.testing.assert_allclose(
    loss.gradient, [np.stack([sampled, -sampled], -1)], rtol=1e-5, atol=1e-7
  )
  np.testing.assert_allclose(loss.coefficient, coefficients.max(), rtol=1e-6)
  terms = (coefficients * (1 - np.log([0.9, 0.1]))).sum()
  np.testing.assert_allclose(loss.terms, terms, rtol=1e-6)


def test_sums_are_divided_by_sixteen():
  measured = _measured([0.5, 0.2], [0.5, 0.2], advantage=1.0)
  result = _TV._replace(
    mode='pg_no_mask', kind='loss', aggregation='sequence_mean_token_sum_norm'
  )
  loss = reproduction.loss_of(result, measured, jnp.ones((1, 2)))
  np.testing.assert_allclose(loss.value, -np.log([0.5, 0.2]).sum() / 16, 1e-6)


def test_every_mode_is_decided_at_once():
  measured = _measured([0.5, 0.2], [0.9, 0.1], advantage=1.0)
  decisions = reproduction.decide_all(measured)
  assert len(decisions) == 12 + 4 + 2 * 7 + 4  # verl's with either anchor.
  for mode in ('dppo_topk_tv', 'ppo_recompute', 'ppo_ablation_both'):
    anchor = authors.STABLE_RL[mode].anchor
    one = authors.Result('stable_rl', mode, 'mask', anchor)
    np.testing.assert_array_equal(
      decisions['stable_rl', mode, anchor], reproduction.decide(one, measured)
    )


def test_zero_advantage_gets_the_test_of_the_negative():
  measured = _measured([0.5, 0.5], [0.2, 0.8], advantage=0.0)
  keep = reproduction.decide(_TV, measured)
  np.testing.assert_array_equal(keep, [[0, 1]])
  cppo = authors.Result('unirl', 'tight', 'mask', 'rollout')
  np.testing.assert_array_equal(reproduction.decide(cppo, measured), [[1, 1]])
