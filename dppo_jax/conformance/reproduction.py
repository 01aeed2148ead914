"""Results of this package's functions on a golden file, per mode of `authors`.

Everything is f32, as in training.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.base import Array, TokenStats
from dppo_jax.conformance import authors
from dppo_jax.conformance.golden import Inputs
from dppo_jax.ops import divergences, masking, objectives, trust_regions
from dppo_jax.ops.log_probs import token_stats
from dppo_jax.ops.ratios import ratio, sequence_ratio

# Theirs divides the sum over all sequences by this.
_SUM_DIVISOR = 16.0
# What f32 can resolve: of a sum, as a share of the magnitudes added up; of the
# log-prob of a likely token, in nats.
ROUNDING = 2.0**-22
_DELTAS = ('delta_low', 'delta_high')
_CLIPS = ('clip_low', 'clip_high', 'dual_clip')
_ALPHAS = ('alpha_low', 'alpha_high')
_SHIFTS = (1e-8, 2e-8, 5e-8, 1e-7, 2e-7, 5e-7, 1e-6)


class Measured(NamedTuple):
  """A golden file's inputs in this package's types.

  Attributes:
    logits: f32 [B, T, V] of the current policy.
    tokens: i32 [B, T].
    mask: bool [B, T].
    advantages: f32 [B, T].
    current: of the current policy, top K those of mu.
    anchors: 'rollout' and 'recomputed'.
  """

  logits: Array
  tokens: Array
  mask: Array
  advantages: Array
  current: TokenStats
  anchors: Mapping[str, TokenStats]


def measure(inputs: Inputs) -> Measured:
  """Stats of the three policies, with the sampled log-probs of the file.

  These are the inputs of the authors' functions. A separate comparison checks
  that `token_stats` computes them from the logits.
  """
  tokens = jnp.asarray(inputs.tokens, jnp.int32)
  ids = jnp.asarray(inputs.topk_ids, jnp.int32)

  def stats(logits: np.ndarray, log_probs: np.ndarray) -> TokenStats:
    return dataclasses.replace(
      from_logits(jnp.asarray(logits, jnp.float32), tokens, ids),
      log_probs=jnp.asarray(log_probs, jnp.float32),
    )

  return Measured(
    logits=jnp.asarray(inputs.pi_logits, jnp.float32),
    tokens=tokens,
    mask=jnp.asarray(inputs.mask > 0),
    advantages=jnp.asarray(inputs.advantages, jnp.float32),
    current=stats(inputs.pi_logits, inputs.log_probs),
    anchors={
      'rollout': stats(inputs.mu_logits, inputs.rollout_log_probs),
      'recomputed': stats(inputs.old_logits, inputs.old_log_probs),
    },
  )


@jax.jit
def from_logits(logits: Array, tokens: Array, ids: Array | None) -> TokenStats:
  """`token_stats` at temperature 1."""
  return token_stats(
    logits, tokens, top_ids=ids, temperature=1.0, with_entropy=False
  )


def signals_of(
  result: authors.Result, measured: Measured
) -> trust_regions.Signals:
  """Inputs of a result's rule."""
  stats, tokens = measured.anchors[result.anchor], measured.tokens
  divergence = result.row.divergence(
    tokens,
    divergences.replace_kth(tokens, stats),
    divergences.replace_kth(tokens, measured.current),
  )
  advantages = measured.advantages
  if result.implementation in authors.ZERO_IS_NEGATIVE:
    advantages = jnp.where(advantages == 0, -1.0, advantages)
  return trust_regions.Signals(
    advantages=advantages,
    log_probs=measured.current.log_probs,
    anchor_log_probs=stats.log_probs,
    divergence=divergence,
    mask=measured.mask,
  )


def decide(result: authors.Result, measured: Measured) -> Array:
  """Keep weights of a result's mode: f32 [B, T]."""
  signals = signals_of(result, measured)
  return trust_regions.keep_weights(result.row.rule, signals, result.row.bounds)


@jax.jit
def decide_all(measured: Measured) -> dict[tuple[str, str, str], Array]:
  """Keep weights of every mode, f32 [B, T], by implementation, mode, anchor."""
  decisions = {}
  for implementation, rows in authors.MODES.items():
    for mode, row in rows.items():
      # In verl's files each mode is there with either policy as the old one.
      either = implementation == 'verl'
      for anchor in measured.anchors if either else (row.anchor,):
        result = authors.Result(implementation, mode, 'mask', anchor)
        decisions[implementation, mode, anchor] = decide(result, measured)
  return decisions


@functools.partial(jax.jit, static_argnames='result')
def decide_across(
  result: authors.Result, measured: Measured, shift: float
) -> list[Array]:
  """Keep weights with every threshold moved by `shift`, up and down.

  For divergence rules a token's direction is a threshold, too, at pi = mu.

  Returns:
    f32 [B, T] each; a token on which they differ lies within `shift` of its
    threshold.
  """
  row, signals = result.row, signals_of(result, measured)
  decisions = []
  for by in (shift, -shift):
    moved = _moved(row.bounds, by)
    decisions.append(trust_regions.keep_weights(row.rule, signals, moved))
    if trust_regions.TRUST_REGIONS[row.rule].reads_divergence:
      leaning = dataclasses.replace(signals, log_probs=signals.log_probs + by)
      decisions.append(
        trust_regions.keep_weights(row.rule, leaning, row.bounds)
      )
  return decisions


@functools.partial(jax.jit, static_argnames='result')
def decide_rounded(result: authors.Result, measured: Measured) -> list[Array]:
  """Keep weights with pi's log-probs moved by f32 resolution, both ways."""
  return [
    decide(result, _perturbed(measured, by)) for by in (ROUNDING, -ROUNDING)
  ]


def distance(
  result: authors.Result, measured: Measured, theirs: np.ndarray
) -> np.ndarray:
  """Least shift of a threshold that reproduces their decision: f64 [B, T].

  Rounded up to 1, 2 or 5 times a power of ten; infinite beyond 1e-6.
  """
  found = np.full(theirs.shape, np.inf)
  for shift in _SHIFTS:
    for keep in decide_across(result, measured, shift):
      equal = np.asarray(keep) == theirs
      found = np.where(equal, np.minimum(found, shift), found)
  return found


def _perturbed(measured: Measured, by: float) -> Measured:
  return measured._replace(current=_nudged(measured.current, by))


def _nudged(stats: TokenStats, by: float) -> TokenStats:
  """Stats with every log-prob moved, at most to 0."""
  top = jnp.asarray(stats.top_log_probs)
  return dataclasses.replace(
    stats,
    log_probs=jnp.minimum(stats.log_probs + by, 0.0),
    top_log_probs=jnp.minimum(top + by, 0.0),
  )


def _moved(
  bounds: trust_regions.Thresholds, by: float
) -> trust_regions.Thresholds:
  # An exemption that is switched off stays off.
  moved = {name: getattr(bounds, name) + by for name in (*_DELTAS, *_CLIPS)}
  moved |= {
    name: getattr(bounds, name) + by
    for name in _ALPHAS
    if getattr(bounds, name) > 0
  }
  return dataclasses.replace(bounds, **moved)


class Values(NamedTuple):
  """Our values of a file's other arrays.

  Attributes:
    found: by name, in the shape of the file.
    spread: by name, change of each value if the log-probs of either policy
      change by twice `ROUNDING`: `other` is 1 minus a sum of K terms.
  """

  found: dict[str, Array]
  spread: dict[str, Array]


class Loss(NamedTuple):
  """A loss with bounds on its rounding error.

  Attributes:
    value: f32 [].
    gradient: f32 [B, T, V], with respect to the current logits.
    terms: f32 [], sum of the magnitudes of the summands, and of the
      coefficients of d log pi.
    coefficient: f32 [], largest magnitude that multiplies a d log pi.
  """

  value: Array
  gradient: Array
  terms: Array
  coefficient: Array


def loss_of(result: authors.Result, measured: Measured, keep: Array) -> Loss:
  """Loss of a result over the batch, and its gradient.

  Args:
    result: a loss or a gradient.
    measured: the file.
    keep: f32 [B, T], M.
  """
  row = result.row
  mask, advantages = measured.mask, measured.advantages
  weight = _weight(
    measured,
    result.weight_anchor,
    row.importance,
    row.ratio_floor,
    min(result.ratio_cap, row.ratio_cap),
  )
  # Ours is a mean over sequences, divided by a constant; theirs is a sum.
  num_sequences = max(int(jnp.sum(jnp.any(mask, axis=1))), 1)
  shares = _shares(mask, result.aggregation, _SUM_DIVISOR / num_sequences)
  loss = _loss(
    measured.logits, measured.tokens, weight, advantages, keep, shares, row.form
  )
  if row.published_value is None:
    return loss
  value, terms = _published(
    row.published_value, row.bounds, weight, advantages, keep, shares
  )
  return loss._replace(value=value, terms=terms)


@functools.partial(jax.jit, static_argnames=('anchor', 'importance'))
def _weight(
  measured: Measured, anchor: str, importance: str, floor: float, cap: float
) -> Array:
  log_probs = measured.current.log_probs
  anchor_log_probs = measured.anchors[anchor].log_probs
  if importance == 'sequence':
    ratios = sequence_ratio(log_probs, anchor_log_probs, measured.mask)
  else:
    ratios = ratio(log_probs, anchor_log_probs)
  return objectives.importance_weight(ratios, floor, cap)


@functools.partial(jax.jit, static_argnames='aggregation')
def _shares(mask: Array, aggregation: str, length_norm: float) -> Array:
  return masking.aggregation_weights(mask, aggregation, length_norm)


@functools.partial(jax.jit, static_argnames=('value_fn', 'bounds'))
def _published(
  value_fn: authors.ValueFn,
  bounds: trust_regions.Thresholds,
  weight: Array,
  advantages: Array,
  keep: Array,
  shares: Array,
) -> tuple[Array, Array]:
  value = value_fn(weight, advantages, keep, bounds)
  shared = jnp.where(shares > 0, shares * value, 0.0)
  return jnp.sum(shared), jnp.sum(jnp.abs(shared))


@functools.partial(jax.jit, static_argnames='form')
def _loss(
  logits: Array,
  tokens: Array,
  weight: Array,
  advantages: Array,
  keep: Array,
  shares: Array,
  form: str,
) -> Loss:
  def total(logits: Array) -> tuple[Array, Array]:
    log_probs = from_logits(logits, tokens, None).log_probs
    per_token = objectives.FORMS[form](log_probs, weight, advantages, keep)
    shared = jnp.where(shares > 0, shares * per_token, 0.0)
    return jnp.sum(shared), jnp.sum(jnp.abs(shared))

  (value, terms), gradient = jax.value_and_grad(total, has_aux=True)(logits)
  coefficients = jnp.abs(shares * keep * weight * advantages)
  return Loss(
    value=value,
    gradient=gradient,
    terms=terms + jnp.sum(coefficients),
    coefficient=jnp.max(coefficients),
  )


@jax.jit
def values_of(
  mu_logits: Array, old_logits: Array, measured: Measured
) -> Values:
  """Log-probs and Top-K divergences, by their names in a file.

  The log-probs are those of `token_stats` from the logits, the top K those of
  mu with `replace_kth`. Both divergences have the numerics of their code.
  """
  tokens = measured.tokens
  num_listed = jnp.asarray(measured.current.top_log_probs).shape[-1]
  _, ids = jax.lax.top_k(mu_logits, num_listed)
  mu = divergences.replace_kth(tokens, from_logits(mu_logits, tokens, ids))
  found = {
    'rollout_log_probs': mu.log_probs,
    'old_log_probs': from_logits(old_logits, tokens, None).log_probs,
    'log_probs': from_logits(measured.logits, tokens, None).log_probs,
    'topk_log_probs': jnp.asarray(mu.top_log_probs),
  }
  spread = {name: jnp.zeros_like(value) for name, value in found.items()}
  for name, divergence in (
    ('topk_kl', authors.tiny_other_kl),
    ('topk_tv', divergences.topk_tv),
  ):
    found[name] = divergence(
      tokens, measured.anchors['rollout'], measured.current
    )
    around = [
      divergence(
        tokens,
        _nudged(measured.anchors['rollout'], of_mu),
        _nudged(measured.current, of_pi),
      )
      for of_mu in (2 * ROUNDING, 0.0, -2 * ROUNDING)
      for of_pi in (2 * ROUNDING, 0.0, -2 * ROUNDING)
    ]
    spread[name] = jnp.max(jnp.abs(jnp.stack(around) - found[name][None]), 0)
  return Values(found, spread)
