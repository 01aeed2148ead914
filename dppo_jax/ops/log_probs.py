"""Log-probs of the tokens, and the one-step shift between states and tokens.

The state at position t predicts the token at t + 1. The shift happens here and
nowhere else: `predicting` picks the states, and everything after it is indexed
by the token it is about.
"""

import chex
import jax
import jax.numpy as jnp

from dppo_jax.base import Array, TokenStats

# The mass that a probability, or a sum of recorded ones, leaves over is never
# taken to be smaller than this. One minus a sum of rounded f32 is good to about
# 1e-7; an order above that, rounding can no longer make a KL large and mask a
# token for nothing.
COMPLEMENT_FLOOR = 2.0**-20

# Log-prob of a token that cannot be drawn: its probability is 0 in f32, and
# sums and squares of it stay finite where -inf would make NaN.
LOWEST_LOG_PROB = -1e5


def predicting(hidden: Array, first_token: int) -> Array:
  """States that predict the tokens from column `first_token` on.

  Args:
    hidden: [B, T, D], the state after each token.
    first_token: P >= 1, the first column to be predicted.

  Returns:
    [B, T - P, D], entry r predicts column P + r.
  """
  return hidden[:, first_token - 1 : -1]


def align(values: Array, num_columns: int) -> Array:
  """Completion columns [B, R, ...] back to [B, T, ...], zeros before them."""
  missing = num_columns - values.shape[1]
  padding = [(0, 0), (missing, 0)] + [(0, 0)] * (values.ndim - 2)
  return jnp.pad(values, padding)


def restrict(logits: Array, support: Array | None) -> Array:
  """Logits with -inf outside the tokens that could be sampled.

  Softmax of them is the law of a filtered sampler. Holds [..., V] twice: the
  definition.

  Args:
    logits: [..., V].
    support: i32 [..., S], ids, -1 for none; None leaves the logits as they are.
  """
  if support is None:
    return logits
  size = logits.shape[-1]
  ids = jnp.where(support < 0, size, support).reshape(-1, support.shape[-1])
  inside = jnp.zeros((len(ids), size), bool)
  rows = jnp.arange(len(ids))[:, None]
  inside = inside.at[rows, ids].set(True, mode='drop')
  return jnp.where(inside.reshape(logits.shape), logits, -jnp.inf)


def token_stats(
  logits: Array,
  tokens: Array,
  *,
  top_ids: Array | None,
  temperature: float,
  with_entropy: bool,
) -> TokenStats:
  """Stats of `tokens`, and of the ids that the sampler recorded.

  log pi(a) = z_a / temperature - logsumexp(z / temperature)

  Args:
    logits: [B, S, V], entry s predicts token s.
    tokens: i32 [B, S].
    top_ids: i32 [B, S, K] or None.
    temperature: > 0, divides the logits.
    with_entropy: whether to compute the entropy.

  Returns:
    TokenStats of [B, S]; the entropy carries a gradient.

  Numerics: f32 inside, or f64 where the logits are. The maximum is subtracted
  before the logarithm of the sum, which is then >= 0, so that no log-prob
  exceeds 0; none is below `LOWEST_LOG_PROB`. Holds [B, S, V]: the definition.
  `lm_head/fused_loss.py` gives the same from hidden states without that array.
  """
  chex.assert_rank([logits, tokens], [3, 2])
  dtype = jnp.promote_types(logits.dtype, jnp.float32)
  log_probs = jax.nn.log_softmax(logits.astype(dtype) / temperature)

  def at(ids: Array) -> Array:
    found = jnp.take_along_axis(log_probs, ids, axis=-1)
    return jnp.maximum(found, LOWEST_LOG_PROB)

  sampled = at(tokens[..., None])
  top_log_probs = None if top_ids is None else at(top_ids)
  return TokenStats(
    log_probs=sampled[..., 0],
    top_ids=top_ids,
    top_log_probs=top_log_probs,
    entropy=entropy(log_probs) if with_entropy else None,
  )


def entropy(log_probs: Array) -> Array:
  """Entropy in nats of distributions given as log-probs: [..., V] -> [...].

  >>> print(round(float(entropy(jnp.log(jnp.array([0.5, 0.5, 0.0])))), 4))
  0.6931
  """
  finite = jnp.isfinite(log_probs)
  safe = jnp.where(finite, log_probs, 0.0)
  return -jnp.sum(jnp.where(finite, jnp.exp(safe) * safe, 0.0), axis=-1)


def log_complement(log_probs: Array) -> Array:
  """log(1 - p) from log p, floored at log `COMPLEMENT_FLOOR`; same shape.

  Args:
    log_probs: float, <= 0, any shape.

  Numerics: f32. -expm1 near log p = 0 and log1p far from it keep the relative
  error of 1 - p at rounding level; both branches see a safe argument, so value
  and gradient are finite at log p = 0 and at -inf.

  >>> print(round(float(log_complement(jnp.log(0.25))), 4))
  -0.2877
  """
  log_probs = jnp.minimum(log_probs.astype(jnp.float32), 0.0)
  near_one = log_probs > -0.6931472
  safe = jnp.where(near_one, log_probs, -1.0)
  near = jnp.log(jnp.maximum(-jnp.expm1(safe), COMPLEMENT_FLOOR))
  far = jnp.log1p(-jnp.exp(jnp.where(near_one, -1.0, log_probs)))
  return jnp.where(near_one, near, far)
