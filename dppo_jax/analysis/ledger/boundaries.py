"""Boundaries of a rule in the plane of mu and pi, to draw beside its tokens."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from dppo_jax.base import TokenStats
from dppo_jax.learner.loss import LossConfig
from dppo_jax.ops.divergences import DIVERGENCES
from dppo_jax.ops.trust_regions import TRUST_REGIONS

_NUM_HALVINGS = 50


def of_rule(
  loss: LossConfig, mu: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
  """Boundaries of a rule: pi beyond which it masks.

  For A > 0 above mu, for A < 0 below. Position weights and prefix budgets move
  a boundary from token to token; shown is that of weight 1 without a budget.

  Args:
    loss: has the rule and its thresholds.
    mu: f64 [n], probabilities of the sampled token under the anchor.

  Yields:
    A label and pi f64 [n], NaN where no pi is beyond the bound. Nothing where
    the plane does not decide: a recomputed anchor, a divergence that needs
    more than the probability of the sampled token, a rule without a bound or
    of whole sequences.
  """
  row, bounds = TRUST_REGIONS[loss.rule], loss.bounds
  if loss.anchor != 'rollout' or row.scope == 'sequence':
    return
  if 'clip_high' in row.reads:
    for label, pi in (
      (f'A > 0: ratio {1 + bounds.clip_high:g}', mu * (1 + bounds.clip_high)),
      (f'A < 0: ratio {1 - bounds.clip_low:g}', mu * (1 - bounds.clip_low)),
    ):
      yield label, np.where((pi > 0) & (pi < 1), pi, np.nan)
  elif row.reads_divergence and loss.divergence.startswith('binary'):
    for name, end, delta in (
      ('A > 0', 1.0, bounds.delta_high),
      ('A < 0', 0.0, bounds.delta_low),
    ):
      if f'delta_{"high" if end else "low"}' in row.reads:
        yield f'{name}: δ {delta:g}', _solve(loss.divergence, mu, end, delta)


def _solve(
  divergence: str, mu: np.ndarray, end: float, delta: float
) -> np.ndarray:
  """pi between mu and `end` whose divergence from mu is `delta`: f64 [n]."""
  near, far = mu.copy(), np.full_like(mu, end)
  for _ in range(_NUM_HALVINGS):
    middle = (near + far) / 2
    inside = _measure(divergence, mu, middle) <= delta
    near, far = np.where(inside, middle, near), np.where(inside, far, middle)
  return np.where(np.abs(near - end) > 1e-6, near, np.nan)


def _measure(divergence: str, mu: np.ndarray, pi: np.ndarray) -> np.ndarray:
  """Binary divergence of pi from mu, in the unit of its row: f64 [n]."""
  log_mu, log_pi = (
    jnp.log(jnp.asarray(np.clip(values, 1e-12, 1 - 1e-7), jnp.float32))[None]
    for values in (mu, pi)
  )
  found = DIVERGENCES[divergence].fn(
    jnp.zeros(log_mu.shape, jnp.int32),
    TokenStats(log_probs=log_mu),
    TokenStats(log_probs=log_pi),
  )
  return np.asarray(found, np.float64)[0]
