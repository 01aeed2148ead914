"""Ratios of pi to an anchor, of tokens and of whole completions."""

import jax.numpy as jnp

from dppo_jax.base import Array
from dppo_jax.ops.masking import row_mean

# e**80 is finite in f32; beyond it a ratio says nothing more.
MAX_LOG_RATIO = 80.0


def ratio(log_probs: Array, anchor_log_probs: Array) -> Array:
  """r = pi / anchor, from log-probs; finite whatever they are."""
  log_ratio = log_probs - anchor_log_probs
  return jnp.exp(jnp.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO))


def sequence_ratio(
  log_probs: Array, anchor_log_probs: Array, mask: Array
) -> Array:
  """Length-normalized ratio of whole completions (GSPO, arXiv:2507.18071).

  s = exp( 1/T sum_t log(pi_t / anchor_t) ), the same for every token.

  Args:
    log_probs: f32 [B, T].
    anchor_log_probs: f32 [B, T].
    mask: bool [B, T].

  Returns:
    f32 [B, T].
  """
  log_ratio = row_mean(log_probs - anchor_log_probs, mask)
  s = jnp.exp(jnp.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO))
  return jnp.broadcast_to(s[:, None], mask.shape)
