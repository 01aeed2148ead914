"""Loss per token; reduction happens once, in the learner.

  grad L = E_{y ~ mu}[ sum_t M_t min(r_t, C) A_t grad log pi(y_t | s_t) ]

is DPPO's eq. 23, here as a loss to be minimized, hence the sign.
"""

from collections.abc import Callable, Mapping

import chex
import jax
import jax.numpy as jnp

from dppo_jax.base import Array
from dppo_jax.ops.trust_regions import ratio


def score_form(
  log_probs: Array, weight: Array, advantages: Array, keep: Array
) -> Array:
  """loss_t = -M_t sg(weight_t) A_t log pi_t (eq. 23).

  Args:
    log_probs: f32 [B, T], log pi, the only argument with a gradient.
    weight: f32 [B, T], importance weight, see `importance_weight`.
    advantages: f32 [B, T].
    keep: f32 [B, T], M.

  Returns:
    f32 [B, T].
  """
  chex.assert_equal_shape([log_probs, weight, advantages, keep])
  return -jax.lax.stop_gradient(keep * weight * advantages) * log_probs


def surrogate_form(
  log_probs: Array, weight: Array, advantages: Array, keep: Array
) -> Array:
  """loss_t = -M_t weight_t A_t (eq. 12), with the gradient of the weight.

  The weight enters as sg(weight) pi / sg(pi): its value is the capped ratio
  and its gradient weight grad log pi everywhere, the same as `score_form`'s.
  Written as -min(r, C) A, the gradient would die above C. Arguments and result
  as in `score_form`.
  """
  chex.assert_equal_shape([log_probs, weight, advantages, keep])
  moving = jnp.exp(log_probs - jax.lax.stop_gradient(log_probs))
  return -jax.lax.stop_gradient(keep * weight * advantages) * moving


def importance_weight(
  ratios: Array, ratio_floor: float, ratio_cap: float
) -> Array:
  """min(max(r, floor), C): truncated pi / mu, no gradient; [B, T].

  CISPO (arXiv:2506.13585) has a cap and a floor, truncated importance sampling
  a cap only.
  """
  return jnp.clip(jax.lax.stop_gradient(ratios), ratio_floor, ratio_cap)


def k1(log_probs: Array, reference_log_probs: Array) -> Array:
  """log(pi / ref) of the sampled token: unbiased for KL(pi || ref).

  The value is k1. Its plain derivative has mean zero and regularizes nothing,
  so the gradient is that of the KL: log(pi / ref) grad log pi.
  """
  log_ratio = jax.lax.stop_gradient(log_probs - reference_log_probs)
  return log_ratio * (1.0 + log_probs - jax.lax.stop_gradient(log_probs))


def k3(log_probs: Array, reference_log_probs: Array) -> Array:
  """ref/pi - 1 - log(ref/pi) >= 0: unbiased for KL(pi || ref), less noisy.

  Its gradient is, in the mean over pi, that of the *other* KL(ref || pi).
  """
  r = ratio(reference_log_probs, log_probs)
  return r - 1.0 - (reference_log_probs - log_probs)


FORMS: Mapping[str, Callable[..., Array]] = {
  'score': score_form,
  'surrogate': surrogate_form,
}

KL_ESTIMATORS: Mapping[str, Callable[[Array, Array], Array]] = {
  'k1': k1,
  'k3': k3,
}
