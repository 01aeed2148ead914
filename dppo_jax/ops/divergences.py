"""How far the policy moved at each token: rows of `DIVERGENCES`.

Every row takes the tokens, the anchor's stats and the current policy's stats
and returns [B, T]. The anchor comes first, as in KL(mu || pi). A row measures;
it decides nothing. Equation numbers are those of arXiv:2602.04879.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp

from dppo_jax.base import Array, DivergenceFn, Integrand, TokenStats
from dppo_jax.ops.log_probs import COMPLEMENT_FLOOR, log_complement


def binary_tv(tokens: Array, anchor: TokenStats, current: TokenStats) -> Array:
  """D = |mu - pi| of the sampled token (eq. 13), in [0, 1]."""
  del tokens
  return jnp.abs(jnp.exp(anchor.log_probs) - jnp.exp(current.log_probs))


def binary_kl(
  tokens: Array,
  anchor: TokenStats,
  current: TokenStats,
  *,
  complement: Callable[[Array], Array] = log_complement,
) -> Array:
  """D = KL of Bernoulli(mu) from Bernoulli(pi) (eq. 14), nats.

  mu log(mu / pi) + (1 - mu) log((1 - mu) / (1 - pi))

  Numerics: `complement` turns log p into log(1 - p). Ours floors 1 - p at
  2**-20, so D stays finite at pi = 1; the authors' code adds 1e-8 instead.
  """
  del tokens
  log_mu, log_pi = anchor.log_probs, current.log_probs
  log_not_mu, log_not_pi = complement(log_mu), complement(log_pi)
  sampled = jnp.exp(log_mu) * (log_mu - log_pi)
  rest = jnp.exp(log_not_mu) * (log_not_mu - log_not_pi)
  return jnp.maximum(sampled + rest, 0.0)


def topk_tv(tokens: Array, anchor: TokenStats, current: TokenStats) -> Array:
  """D = 1/2 sum |mu - pi| over A'' (eq. 15), in [0, 1].

  A'' is the anchor's top K, the sampled token where it is not among them, and
  `other`, which holds the rest of the mass.
  """
  mu, pi = _atoms(tokens, anchor), _atoms(tokens, current)
  explicit = jnp.sum(jnp.abs(jnp.exp(mu) - jnp.exp(pi)), axis=-1)
  other = jnp.abs(_other_mass(mu) - _other_mass(pi))
  return 0.5 * (explicit + other)


def topk_kl(
  tokens: Array,
  anchor: TokenStats,
  current: TokenStats,
  *,
  other_floor: float = COMPLEMENT_FLOOR,
) -> Array:
  """D = sum mu log(mu / pi) over A'' (eq. 16), nats; A'' as in `topk_tv`.

  Numerics: the mass of `other` is floored for both policies. The authors' code
  floors it at 1e-12, far below the rounding of the sum it comes from.
  """
  mu, pi = _atoms(tokens, anchor), _atoms(tokens, current)
  absent = jnp.isneginf(mu)
  log_ratio = jnp.where(absent, 0.0, mu) - jnp.where(absent, 0.0, pi)
  explicit = jnp.sum(jnp.exp(mu) * log_ratio, axis=-1)
  mu_other = jnp.maximum(_other_mass(mu), other_floor)
  pi_other = jnp.maximum(_other_mass(pi), other_floor)
  return jnp.maximum(explicit + mu_other * jnp.log(mu_other / pi_other), 0.0)


def tv_bounds(
  tokens: Array, anchor: TokenStats, current: TokenStats
) -> tuple[Array, Array]:
  """Bounds of the exact TV from recorded log-probs, in [0, 1]: [B, T] each.

  D_K <= D <= D_K + min(mu(other), pi(other)),  D_K as in `topk_tv`

  since what two masses outside A'' can differ by lies between their difference
  and their sum (C-DPPO, arXiv:2609.04678, of which the rule was read; derived
  here).
  """
  lower = topk_tv(tokens, anchor, current)
  mu, pi = (_other_mass(_atoms(tokens, s)) for s in (anchor, current))
  return lower, jnp.minimum(lower + jnp.minimum(mu, pi), 1.0)


def tv_integrand(mu: Array, pi: Array, log_ratio: Array) -> Array:
  """1/2 |mu - pi|, to be summed over the vocabulary; any shape."""
  del log_ratio
  return 0.5 * jnp.abs(mu - pi)


def kl_integrand(mu: Array, pi: Array, log_ratio: Array) -> Array:
  """mu log(mu / pi), to be summed over the vocabulary; any shape."""
  del pi
  return mu * log_ratio


def tv_sign(mu: Array, pi: Array, log_ratio: Array) -> Array:
  """sign(pi - mu) pi, to be summed over the vocabulary; any shape."""
  del log_ratio
  return jnp.sign(pi - mu) * pi


def tv_sign_square(mu: Array, pi: Array, log_ratio: Array) -> Array:
  """sign(pi - mu) pi^2, to be summed over the vocabulary; any shape."""
  del log_ratio
  return jnp.sign(pi - mu) * pi**2


def pi_square(mu: Array, pi: Array, log_ratio: Array) -> Array:
  """pi^2, to be summed over the vocabulary; any shape."""
  del mu, log_ratio
  return pi**2


def kl_cross(mu: Array, pi: Array, log_ratio: Array) -> Array:
  """pi (mu - pi), to be summed over the vocabulary; any shape."""
  del log_ratio
  return pi * (mu - pi)


class Rate(NamedTuple):
  """Rate of a divergence along an update of the sampled token y.

  A step eta A on the score of y moves the logits by eta A (onehot(y) - pi), and
  log pi_v by eta A (1{v = y} - pi_v - pi_y + sum_u pi_u^2). The rate is
  dD / d(eta A), the second half of the predictive mask (arXiv:2607.10848, of
  which the abstract was read; derived here):

    KL: pi_y - mu_y + sum_v pi_v (mu_v - pi_v)
    TV: 1/2 sum_v s_v pi_v (1{v = y} - pi_v - pi_y + sum_u pi_u^2),
        s_v = sign(pi_v - mu_v)

  Of the two-point distribution of a Binary row the rate has the sign of
  pi_y - mu_y: there 'predictive' is 'away', so that it has none.

  Attributes:
    integrands: what is summed over the vocabulary.
    combine: (mu_y, pi_y, *sums) to the rate, of shapes that broadcast.
  """

  integrands: tuple[Integrand, ...]
  combine: Callable[..., Array]


def _combine_kl(mu: Array, pi: Array, cross: Array) -> Array:
  return pi - mu + cross


def _combine_tv(
  mu: Array, pi: Array, signed: Array, signed_square: Array, square: Array
) -> Array:
  own = jnp.sign(pi - mu) * pi
  return 0.5 * (own - signed_square + (square - pi) * signed)


KL_RATE = Rate((kl_cross,), _combine_kl)
TV_RATE = Rate((tv_sign, tv_sign_square, pi_square), _combine_tv)


def rate_sums(
  rate: Rate,
  tokens: Array,
  anchor: TokenStats,
  current: TokenStats,
  *,
  vocab_size: int | None,
) -> tuple[Array, ...]:
  """Estimates of the sums of a rate from recorded log-probs: [B, T] each.

  Args:
    rate: of the divergence.
    tokens: i32 [B, T].
    anchor: with `top_log_probs`.
    current: with `top_log_probs`.
    vocab_size: V, over whose tokens the mass outside A'' (see `topk_tv`) is
      spread evenly; None takes it as one token.
  """
  log_mu, log_pi = _atoms(tokens, anchor), _atoms(tokens, current)
  absent = jnp.isneginf(log_mu)
  log_ratio = jnp.where(absent, 0.0, log_mu) - jnp.where(absent, 0.0, log_pi)
  mu, pi = jnp.exp(log_mu), jnp.exp(log_pi)
  count: Array | float = 1.0
  if vocab_size is not None:
    count = jnp.maximum(vocab_size - jnp.sum(~absent, axis=-1), 1)
  mu_rest = jnp.maximum(_other_mass(log_mu), COMPLEMENT_FLOOR)
  pi_rest = jnp.maximum(_other_mass(log_pi), COMPLEMENT_FLOOR)
  rest = mu_rest / count, pi_rest / count, jnp.log(mu_rest / pi_rest)
  return tuple(
    jnp.sum(g(mu, pi, log_ratio), axis=-1) + count * g(*rest)
    for g in rate.integrands
  )


def exact_rate_sums(
  rate: Rate, anchor: TokenStats, current: TokenStats
) -> tuple[Array, ...]:
  """The sums of a rate over the vocabulary: [B, T] each; needs K = V."""
  return tuple(_integral(g, anchor, current) for g in rate.integrands)


def exact_tv(tokens: Array, anchor: TokenStats, current: TokenStats) -> Array:
  """D = 1/2 sum |mu - pi| over the vocabulary, in [0, 1]; needs K = V."""
  del tokens
  return _integral(tv_integrand, anchor, current)


def certified_tv(
  tokens: Array, anchor: TokenStats, current: TokenStats
) -> Array:
  """D = exact TV, or its bound `topk_tv` where K tokens decide D > delta.

  Training measures the whole vocabulary only for tokens whose delta lies
  within `tv_bounds` (C-DPPO), see `learner/movement.py: certify`; its masks are
  those of `exact_tv`. Of all ids, as here, the two are the same.
  """
  return exact_tv(tokens, anchor, current)


def exact_kl(tokens: Array, anchor: TokenStats, current: TokenStats) -> Array:
  """D = sum mu log(mu / pi) over the vocabulary, nats; needs K = V."""
  del tokens
  return jnp.maximum(_integral(kl_integrand, anchor, current), 0.0)


def _integral(
  integrand: Integrand, anchor: TokenStats, current: TokenStats
) -> Array:
  """Sum over the recorded ids, which are the vocabulary where K = V."""
  log_mu, log_pi = _recorded(anchor), _recorded(current)
  absent = jnp.isneginf(log_mu)
  log_ratio = jnp.where(absent, 0.0, log_mu) - jnp.where(absent, 0.0, log_pi)
  return jnp.sum(
    integrand(jnp.exp(log_mu), jnp.exp(log_pi), log_ratio), axis=-1
  )


def replace_kth(tokens: Array, stats: TokenStats) -> TokenStats:
  """Puts the sampled token in place of the K-th where it is not listed.

  The authors' code keeps exactly K atoms this way, where the paper's set has
  K + 1. The result goes into any Top-K row, for the anchor and for the current
  policy alike; it lists the sampled token always, so nothing is added to it.

  Args:
    tokens: i32 [B, T].
    stats: with `top_ids` and `top_log_probs` [B, T, K].

  Returns:
    Stats of the same shapes.
  """
  top, ids = _recorded(stats), stats.top_ids
  if ids is None:
    raise ValueError('TokenStats.top_ids: missing beside top_log_probs')
  chex.assert_equal_shape([top, ids])
  listed = jnp.any(ids == tokens[..., None], axis=-1)
  last_id = jnp.where(listed, ids[..., -1], tokens)
  last = jnp.where(listed, top[..., -1], stats.log_probs)
  return dataclasses.replace(
    stats,
    top_ids=ids.at[..., -1].set(last_id),
    top_log_probs=top.at[..., -1].set(last),
  )


def on_k_atoms(
  fn: DivergenceFn, tokens: Array, anchor: TokenStats, current: TokenStats
) -> Array:
  """A Top-K row on the authors' K atoms, see `replace_kth`: f32 [B, T]."""
  anchor = replace_kth(tokens, anchor)
  return fn(tokens, anchor, replace_kth(tokens, current))


def _recorded(stats: TokenStats) -> Array:
  if stats.top_log_probs is None:
    raise ValueError(
      'sampling.top_k: this divergence reads the top-K log-probs and none were'
      ' recorded; set sampling.top_k > 0'
    )
  return stats.top_log_probs


def _atoms(tokens: Array, stats: TokenStats) -> Array:
  """Log-probs of A' = TopK union {sampled}: [B, T, K + 1].

  The last atom is the sampled token, -inf (no mass) where it is among the K.
  """
  top = _recorded(stats)
  ids = stats.top_ids
  chex.assert_equal_shape([top, ids])
  listed = jnp.any(ids == tokens[..., None], axis=-1)
  sampled = jnp.where(listed, -jnp.inf, stats.log_probs)
  return jnp.concatenate([top, sampled[..., None]], axis=-1)


def _other_mass(atoms: Array) -> Array:
  """1 - sum of the atoms' probabilities, >= 0: [B, T].

  Numerics: the largest atom is taken off by expm1 and the rest of them after
  it, so that a sharp distribution keeps the small mass it leaves over.
  """
  largest = jax.nn.one_hot(jnp.argmax(atoms, axis=-1), atoms.shape[-1])
  rest = jnp.sum(jnp.where(largest > 0, 0.0, jnp.exp(atoms)), axis=-1)
  return jnp.maximum(-jnp.expm1(jnp.max(atoms, axis=-1)) - rest, 0.0)


class Divergence(NamedTuple):
  """A row of `DIVERGENCES`.

  Attributes:
    fn: the function of recorded stats.
    unit: 'probability' (at most 1) or 'nats'.
    records: what the sampler must record beside the sampled log-prob:
      'nothing', 'top_k' (K >= 1) or 'hidden', the states it sampled from.
    integrand: for 'hidden': what is summed over the vocabulary, given mu, pi
      and log(mu / pi). Training measures by it; `fn` gives the same where
      K = V.
    rate: where an update takes it; None where its sign is that of pi - mu, or
      where it is not measured at every token.
    certified: whether D is measured only where bounds leave D > delta open.
  """

  fn: DivergenceFn
  unit: Literal['probability', 'nats']
  records: Literal['nothing', 'top_k', 'hidden']
  integrand: Integrand | None = None
  rate: Rate | None = None
  certified: bool = False


DIVERGENCES: Mapping[str, Divergence] = {
  'binary_tv': Divergence(binary_tv, 'probability', 'nothing'),
  'binary_kl': Divergence(binary_kl, 'nats', 'nothing'),
  'topk_tv': Divergence(topk_tv, 'probability', 'top_k', rate=TV_RATE),
  'topk_kl': Divergence(topk_kl, 'nats', 'top_k', rate=KL_RATE),
  'exact_tv': Divergence(
    exact_tv, 'probability', 'hidden', tv_integrand, TV_RATE
  ),
  'exact_kl': Divergence(exact_kl, 'nats', 'hidden', kl_integrand, KL_RATE),
  'certified_tv': Divergence(
    certified_tv, 'probability', 'hidden', tv_integrand, certified=True
  ),
}


def of_the_sampled_token(unit: str) -> list[str]:
  """Names of the rows in a unit for which nothing more must be recorded.

  >>> of_the_sampled_token('nats')
  ['binary_kl']
  """
  return [
    name
    for name, row in DIVERGENCES.items()
    if row.unit == unit and row.records == 'nothing'
  ]
