"""Score centering: takes the mean off an off-policy score.

Off the policy the weighted score has a mean under mu, E_mu[w grad log pi],
which moves pi whatever the rewards are. Score centering (arXiv:2609.20807)
subtracts it:

  loss = -A [ sg(w_y) log pi_y - sum_v sg(c_v) log pi_v ]
  exact: c_v = mu_v w_v                      over the vocabulary
  top-K: c_v = mu_v w_v - alpha pi_v         over H, the K likeliest of mu

Outside H mu is taken to be pi scaled to mu's mass there,

  rho = (1 - mu(H)) / (1 - pi(H)),  alpha = rho w(1 / rho),

whose part of the sum, as the score of pi has mean 0, is that of -alpha pi_v in
H. Both masses are floored at 1e-6, as in the authors' code. w_v is the weight
that token v would have had, without a gradient.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dppo_jax.base import Array, TokenStats
from dppo_jax.ops.ratios import ratio

# Least mass outside H; the authors' constant.
_LEAST_TAIL = 1e-6

# (log pi, log mu, pi / mu) of candidates [..., n] to their weights [..., n].
# The ratio is an argument of its own: it is known better, or for less, than
# from the logarithms.
WeightFn = Callable[[Array, Array, Array], Array]


def centre(
  weight_fn: WeightFn, pi: TokenStats, mu: TokenStats, *, exact: bool
) -> Array:
  """sum_v c_v log pi_v, differentiable in log pi: [...].

  Args:
    weight_fn: the weight of a token.
    pi: with log-probs of the ids that `mu` recorded.
    mu: of the sampler.
    exact: whether these are all ids of the vocabulary.

  Raises:
    ValueError: none were recorded.
  """
  if pi.top_log_probs is None or mu.top_log_probs is None:
    raise ValueError(
      'objective.centering: top-K log-probs are needed and none were recorded;'
      ' set sampling.top_k > 0'
    )
  coefficients = exact_coefficients if exact else top_k_coefficients
  c = coefficients(weight_fn, pi.top_log_probs, mu.top_log_probs)
  return jnp.sum(c * pi.top_log_probs, axis=-1)


def exact_coefficients(
  weight_fn: WeightFn, log_pi: Array, log_mu: Array
) -> Array:
  """c_v = mu_v w_v of all tokens of the vocabulary, no gradient: [..., V]."""
  log_pi, log_mu = jax.lax.stop_gradient((log_pi, log_mu))
  return jnp.exp(log_mu) * weight_fn(log_pi, log_mu, ratio(log_pi, log_mu))


def top_k_coefficients(
  weight_fn: WeightFn, log_pi: Array, log_mu: Array
) -> Array:
  """c_v = mu_v w_v - alpha pi_v of the K candidates, no gradient: [..., K].

  Args:
    weight_fn: the weight of a token; called with the candidates and, as one
      more of them, the tail.
    log_pi: f32 [..., K], of mu's K likeliest tokens.
    log_mu: f32 [..., K], normalized over the whole vocabulary.

  >>> log_mu = jnp.log(jnp.array([[0.5, 0.3]]))
  >>> def truncated(log_pi, log_mu, ratios):
  ...   return jnp.minimum(ratios, 2.0)
  >>> same = top_k_coefficients(truncated, log_mu, log_mu)  # pi = mu
  >>> abs(same).max() < 1e-6
  Array(True, dtype=bool)
  """
  log_pi, log_mu = jax.lax.stop_gradient((log_pi, log_mu))
  mu, pi = jnp.exp(log_mu), jnp.exp(log_pi)
  mu_tail = jnp.maximum(1.0 - jnp.sum(mu, -1, keepdims=True), _LEAST_TAIL)
  pi_tail = jnp.maximum(1.0 - jnp.sum(pi, -1, keepdims=True), _LEAST_TAIL)
  log_pi = jnp.concatenate([log_pi, jnp.log(pi_tail)], axis=-1)
  log_mu = jnp.concatenate([log_mu, jnp.log(mu_tail)], axis=-1)
  weights = weight_fn(log_pi, log_mu, ratio(log_pi, log_mu))
  alpha = mu_tail / pi_tail * weights[..., -1:]
  return mu * weights[..., :-1] - alpha * pi
