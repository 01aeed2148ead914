"""Loss per token; reduction happens once, in the learner.

  grad L = E_{y ~ mu}[ sum_t M_t min(r_t, C) A_t grad log pi(y_t | s_t) ]

is DPPO's eq. 23, here as a loss to be minimized, hence the sign.
"""

from collections.abc import Callable, Mapping

import chex
import jax
import jax.numpy as jnp

from dppo_jax.base import Array, LossFormFn
from dppo_jax.ops.ratios import ratio


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


def least_prefix_ratio(
  log_probs: Array, anchor_log_probs: Array, mask: Array
) -> Array:
  """r_t times the least ratio among the tokens before it (MinPRO).

  w_t = r_t min_{j<t} r_j,  w_1 = r_1

  MinPRO (arXiv:2601.22718) puts the least ratio of the preceding prefix in
  the place of the prefix's product of ratios, which over- and underflows. Read
  of it: the abstract, what arXiv:2606.10968 says of it (appendices A and D),
  and a summary that calls the weight a product with that least ratio. Neither
  the truncation of the weight that its authors use nor their settings were
  read; truncate it by `objective.ratio_floor` and `ratio_cap`.

  Args:
    log_probs: f32 [B, T].
    anchor_log_probs: f32 [B, T].
    mask: bool [B, T]; other positions are in no prefix.

  Returns:
    f32 [B, T]; anything where masked.

  >>> ratios = jnp.array([[2.0, 0.5, 4.0]])
  >>> least_prefix_ratio(jnp.log(ratios), 0.0 * ratios, ratios > 0).tolist()
  [[2.0, 1.0, 2.0]]
  """
  log_ratio = jnp.where(mask, log_probs - anchor_log_probs, jnp.inf)
  least = jax.lax.cummin(log_ratio, axis=1)
  before = jnp.pad(least[:, :-1], ((0, 0), (1, 0)), constant_values=jnp.inf)
  # Of a first token there is no prefix: a factor of 1.
  before = jnp.where(jnp.isposinf(before), 0.0, before)
  return ratio(log_probs + before, anchor_log_probs)


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


FORMS: Mapping[str, LossFormFn] = {
  'score': score_form,
  'surrogate': surrogate_form,
}

KL_ESTIMATORS: Mapping[str, Callable[[Array, Array], Array]] = {
  'k1': k1,
  'k3': k3,
}
