"""Filters on logits: nucleus, likeliest. Training uses temperature only."""

import chex
import jax
import jax.numpy as jnp

from dppo_jax.base import Array


def allowed(logits: Array, temperature: float, top_p: float) -> Array:
  """Logits with -inf outside the support of the sampling distribution.

  The nucleus is that of softmax(z / temperature).

  Args:
    logits: f32 [B, V].
    temperature: > 0.
    top_p: in (0, 1]; 1 filters nothing.

  Returns:
    f32 [B, V].
  """
  if top_p == 1.0:
    return logits
  kept = nucleus(jax.nn.log_softmax(logits / temperature), top_p)
  return jnp.where(jnp.isneginf(kept), -jnp.inf, logits)


def nucleus(log_probs: Array, top_p: float) -> Array:
  """Log-probs of the smallest set of most likely tokens with mass `top_p`.

  The most likely token is always kept, and so are ties with the last one kept
  (Holtzman et al., arXiv:1904.09751).

  Args:
    log_probs: f32 [B, V], normalized.
    top_p: in (0, 1].

  Returns:
    f32 [B, V], -inf outside the set, not renormalized.
  """
  chex.assert_rank(log_probs, 2)
  ordered = jnp.sort(log_probs, axis=1, descending=True)
  mass_before = jnp.cumsum(jnp.exp(ordered), axis=1) - jnp.exp(ordered)
  kept = mass_before < top_p
  smallest = jnp.min(ordered, axis=1, where=kept, initial=0.0)
  return jnp.where(log_probs >= smallest[:, None], log_probs, -jnp.inf)


def or_likeliest(
  greedy: Array, logits: Array, uniform: Array
) -> tuple[Array, Array]:
  """Logits and random numbers as they are, or such that the largest is drawn.

  The law has then no other token, and so have the records of it.

  Args:
    greedy: bool [], whether the largest is wanted, of ties the first.
    logits: f32 [B, V].
    uniform: f32 [B] in [0, 1).
  """
  largest = jnp.max(logits, axis=1, keepdims=True)
  others = greedy & (logits < largest)
  return jnp.where(others, -jnp.inf, logits), jnp.where(greedy, 0.0, uniform)
