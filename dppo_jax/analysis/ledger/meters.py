"""Meters of a record, by the functions of training: `learner/meters.py`."""

from collections.abc import Sequence
import dataclasses

import jax.numpy as jnp
import numpy as np

from dppo_jax.analysis.ledger.replay import Rule
from dppo_jax.base import Movement, TokenStats
from dppo_jax.learner import meters
from dppo_jax.learner.loss_config import Context, LossConfig
from dppo_jax.learner.movement import measure_rate
from dppo_jax.runtime.ledger.record import Record

_DECIDED = 'certificate/decided'


def measure(record: Record, rule: Rule) -> dict[str, float]:
  """Means over the tokens, by the names of the metrics.

  Args:
    record: the tokens.
    rule: whose weights, unit and thresholds are measured with.

  Returns:
    Nothing where no top-K log-probs were recorded.
  """
  return _measure(record, rule.loss, None)


def decided_by_k(record: Record, rule: Rule) -> dict[int, float]:
  """K to the share of tokens that K recorded ids decide; see `measure`.

  Fewer ids are the likeliest ones of those recorded.
  """
  most = 0 if record.top_ids is None else record.top_ids.shape[1]
  ks = sorted({k for k in (1, 2, 5, 10, 20, 50, 100) if k < most} | {most})
  if _DECIDED not in meters.names(rule.loss) or not most:
    return {}
  return {k: _measure(record, rule.loss, k)[_DECIDED] for k in ks}


def _measure(
  record: Record, loss: LossConfig, k: int | None
) -> dict[str, float]:
  mu, top_mu = record.rollout_log_probs, record.rollout_top_log_probs
  if loss.anchor == 'recomputed':
    mu, top_mu = record.recomputed_log_probs, record.recomputed_top_log_probs
  if mu is None or top_mu is None or record.top_log_probs is None:
    return {}
  ids = jnp.asarray(record.top_ids)[:, :k]
  tokens = jnp.asarray(record.token)
  anchor = TokenStats(
    log_probs=jnp.asarray(mu),
    top_ids=ids,
    top_log_probs=jnp.asarray(top_mu)[:, :k],
  )
  current = TokenStats(
    log_probs=jnp.asarray(record.log_probs),
    top_ids=ids,
    top_log_probs=jnp.asarray(record.top_log_probs)[:, :k],
  )
  movement, sums = Movement(divergence=jnp.asarray(record.divergence)), ()
  if loss.bounds.direction == 'predictive':
    # Of an exact divergence, too, the rate is that of the recorded ids.
    name = meters.top_k_relative(loss.divergence)
    loss = dataclasses.replace(loss, divergence=name)
    rate, sums = measure_rate(loss, tokens, anchor, current)
    movement = dataclasses.replace(movement, rate=rate)
  entropy = record.rollout_entropy
  found = meters.measure(
    loss,
    Context(
      weights=jnp.ones(len(record.row)),
      mask=jnp.ones(len(record.row), bool),
      advantages=jnp.asarray(record.advantages),
      rollout_log_probs=jnp.asarray(record.rollout_log_probs),
      anchor_log_probs=jnp.asarray(mu),
      reference_log_probs=None,
      anchor_entropy=None if entropy is None else jnp.asarray(entropy),
    ),
    tokens,
    anchor,
    current,
    movement,
    sums,
  )
  return {
    name: float(np.mean(np.asarray(value), dtype=np.float64))
    for name, value in found.items()
  }


def render(record: Record, rules: Sequence[Rule]) -> str:
  """Lines on the meters of a record; '' where it has none.

  Args:
    record: the tokens.
    rules: that of the run first; the others have thresholds of their own.
  """
  if not len(record.row):
    return ''
  found = measure(record, rules[0])
  if not found:
    return ''
  lines = ['Meters, means over the tokens:']
  lines += [f'  {name:<22}  {value:.4g}' for name, value in found.items()]
  for rule in rules:
    shares = decided_by_k(record, rule)
    if shares:
      text = ', '.join(f'K={k} {share:.2%}' for k, share in shares.items())
      lines.append(f'  bounds of the exact TV decide, {rule.name}: {text}')
  return '\n'.join(lines)
