import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.ops import ratios


def test_ratio():
  log_pi = jnp.asarray(np.log([0.6, 0.1, 0.5]), jnp.float32)
  log_mu = jnp.asarray(np.log([0.4, 0.2, 0.5]), jnp.float32)
  np.testing.assert_allclose(
    ratios.ratio(log_pi, log_mu), [1.5, 0.5, 1.0], rtol=1e-6
  )


@pytest.mark.parametrize('log_prob', [-80.0, -1e4, -3e38])
def test_ratio_is_finite_and_positive(log_prob):
  certain, rare = jnp.zeros(1), jnp.full(1, log_prob)
  high = ratios.ratio(certain, rare)
  low = ratios.ratio(rare, certain)
  np.testing.assert_allclose(high, np.exp(80.0), rtol=1e-5)
  np.testing.assert_allclose(low, np.exp(-80.0), rtol=1e-5)


def test_sequence_ratio_is_the_geometric_mean_of_the_row():
  values = np.array([[2.0, 4.0, 1.0, 7.0], [0.5, 0.5, 0.125, 9.0]])
  mask = np.array([[1, 1, 1, 0], [1, 0, 1, 0]], bool)
  log_mu = np.full(values.shape, -3.0, np.float32)
  log_pi = (np.log(values) + log_mu).astype(np.float32)
  log_pi = np.where(mask, log_pi, np.float32(np.nan))
  got = ratios.sequence_ratio(log_pi, log_mu, mask)
  assert got.shape == values.shape
  np.testing.assert_allclose(got[0], 2.0, rtol=1e-6)
  np.testing.assert_allclose(got[1], 0.25, rtol=1e-6)


@pytest.mark.parametrize('log_prob', [-80.0, -1e4, -3e38])
def test_sequence_ratio_is_finite_and_positive(log_prob):
  certain, rare = jnp.zeros((1, 1)), jnp.full((1, 1), log_prob)
  mask = jnp.ones((1, 1), bool)
  high = ratios.sequence_ratio(certain, rare, mask)
  low = ratios.sequence_ratio(rare, certain, mask)
  np.testing.assert_allclose(high, np.exp(80.0), rtol=1e-5)
  np.testing.assert_allclose(low, np.exp(-80.0), rtol=1e-5)
