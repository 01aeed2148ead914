"""Facts of score centering, in f64 on small vocabularies."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import TokenStats
from dppo_jax.ops import centering
from tests.support.examples import examples

_few = examples(15)
_SIZE = 6
_logits = hnp.arrays(np.float64, _SIZE, elements=st.floats(-3, 3, width=16))

_WEIGHTS = {
  'none': lambda r: jnp.ones_like(r),
  'ratio': lambda r: r,
  'truncated': lambda r: jnp.minimum(r, 2.0),
  'masked': lambda r: jnp.where((r > 0.5) & (r < 5.0), r, 0.0),
  'pushes back': lambda r: r * (1.0 - (r - 1.0) / 0.2),
}


def _weight_fn(name):
  def weigh(log_pi, log_mu, ratios):
    del log_pi, log_mu
    return _WEIGHTS[name](ratios)

  return weigh


def _expected_gradient(name, z_pi, z_mu):
  """E over y ~ mu of the gradient of the centred loss of A = 1: f64 [V]."""
  log_mu = jax.nn.log_softmax(z_mu)
  weigh = _weight_fn(name)

  def loss(z):
    log_pi = jax.nn.log_softmax(z)
    ratios = jnp.exp(log_pi - log_mu)
    weights = jax.lax.stop_gradient(_WEIGHTS[name](ratios))
    c = centering.exact_coefficients(weigh, log_pi, log_mu)
    centre = jnp.sum(c * log_pi)
    # Each token sampled, with its probability.
    return -jnp.sum(jnp.exp(log_mu) * (weights * log_pi - centre))

  return jax.grad(loss)(z_pi)


@pytest.mark.parametrize('name', _WEIGHTS)
@_few
@given(z_pi=_logits, z_mu=_logits)
def test_nothing_drifts_under_the_sampler(name, z_pi, z_mu):
  with jax.enable_x64(True):
    got = _expected_gradient(name, jnp.asarray(z_pi), jnp.asarray(z_mu))
  np.testing.assert_allclose(got, 0.0, atol=1e-10)


@_few
@given(z_pi=_logits, z_mu=_logits)
def test_the_full_ratio_has_no_mean_to_take_off(z_pi, z_mu):
  with jax.enable_x64(True):
    log_mu = jax.nn.log_softmax(jnp.asarray(z_mu))

    def centre(z):
      log_pi = jax.nn.log_softmax(z)
      c = centering.exact_coefficients(_weight_fn('ratio'), log_pi, log_mu)
      return jnp.sum(c * log_pi)

    got = jax.grad(centre)(jnp.asarray(z_pi))
  np.testing.assert_allclose(got, 0.0, atol=1e-12)


@pytest.mark.parametrize('name', _WEIGHTS)
@_few
@given(z_pi=_logits, z_mu=_logits)
def test_candidates_without_a_tail_are_exact(name, z_pi, z_mu):
  """H is the vocabulary: alpha only scales a sum of pi_v grad log pi_v, 0."""
  with jax.enable_x64(True):
    log_pi, log_mu = map(
      jax.nn.log_softmax, (jnp.asarray(z_pi), jnp.asarray(z_mu))
    )
    got = centering.top_k_coefficients(_weight_fn(name), log_pi, log_mu)
    want = centering.exact_coefficients(_weight_fn(name), log_pi, log_mu)
    alpha = _WEIGHTS[name](jnp.ones(1))
    np.testing.assert_allclose(
      got, want - alpha * jnp.exp(log_pi), rtol=1e-9, atol=1e-12
    )


def test_the_tail_is_pi_scaled_to_the_mass_of_mu():
  """By hand: mu(H) = .8, pi(H) = .6, so rho = 1/2 and the tail's ratio is 2."""
  mu, pi = jnp.array([0.5, 0.3]), jnp.array([0.4, 0.2])

  def truncated(log_pi, log_mu, ratios):
    np.testing.assert_allclose(ratios, jnp.exp(log_pi - log_mu), rtol=1e-6)
    return jnp.minimum(ratios, 1.5)

  got = centering.top_k_coefficients(truncated, jnp.log(pi), jnp.log(mu))
  # alpha = .5 min(2, 1.5) = .75
  want = mu * np.array([0.8, 2 / 3]) - 0.75 * pi
  np.testing.assert_allclose(got, want, rtol=1e-6)


def test_coefficients_carry_no_gradient():
  log_mu = jnp.log(jnp.array([0.5, 0.3]))
  for fn in (centering.top_k_coefficients, centering.exact_coefficients):

    def total(x, fn=fn):
      return fn(_weight_fn('ratio'), x, log_mu).sum()

    np.testing.assert_array_equal(jax.grad(total)(log_mu), 0.0)


def test_a_centre_needs_what_it_sums_over():
  bare = TokenStats(log_probs=jnp.zeros(1))
  with pytest.raises(ValueError, match='top-K log-probs are needed'):
    centering.centre(_weight_fn('none'), bare, bare, exact=False)
