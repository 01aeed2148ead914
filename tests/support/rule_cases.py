"""Signals of made-up responses, and what the rules say of them."""

import dataclasses
import functools

import jax
import numpy as np

from dppo_jax.ops import trust_regions
from dppo_jax.ops.trust_regions import TRUST_REGIONS, Signals, Thresholds
from tests.support import factories

BOUNDS = dict(
  delta_low=0.1, delta_high=0.3, clip_low=0.2, clip_high=0.4, budget=0.05
)


@functools.partial(jax.jit, static_argnums=0)
def _compiled(names, signals, numbers):
  bounds = Thresholds(**dict(names), **numbers)
  return {
    rule: trust_regions.keep_weights(rule, signals, bounds)
    for rule in TRUST_REGIONS
  }


def keeps(signals, **overrides):
  """M by rule; numbers among the bounds are traced, so that any is cheap.

  One program has all rules: what they share of it is compiled once.
  """
  fields = dataclasses.asdict(factories.bounds(**BOUNDS | overrides))
  names = {k: v for k, v in fields.items() if isinstance(v, str)}
  numbers = {k: np.float32(v) for k, v in fields.items() if k not in names}
  return jax.device_get(_compiled(tuple(names.items()), signals, numbers))


def keep(rule, signals, **overrides):
  return keeps(signals, **overrides)[rule]


def keep_exactly(rule, signals, **overrides):
  """M as a run has it: the bounds are constants, not rounded first."""
  bounds = factories.bounds(**BOUNDS | overrides)
  return np.asarray(trust_regions.keep_weights(rule, signals, bounds))


def row_of(advantages, log_probs, anchor_log_probs, divergence):
  """Signals of one sequence without padding, from lists."""
  values = (advantages, log_probs, anchor_log_probs, divergence)
  a, pi, mu, d = (np.asarray(v, np.float32)[None] for v in values)
  return Signals(
    advantages=a,
    log_probs=pi,
    anchor_log_probs=mu,
    divergence=d,
    mask=np.ones(a.shape, bool),
    rate=np.ones(a.shape, np.float32),
    anchor_entropy=np.ones(a.shape, np.float32),
  )


def random_signals(seed):
  """Responses with one advantage each; some moved far, some hardly."""
  rng = np.random.default_rng(seed)
  shape = (60, 8)
  log_mu = np.log(rng.uniform(0.02, 0.98, shape))
  moved = rng.normal(size=shape) * np.geomspace(0.01, 2.0, 60)[:, None]
  log_pi = np.minimum(log_mu + moved, -0.01)
  # Now and then a large one, so that budgets run out.
  divergence = 0.5 * rng.uniform(0.0, 1.0, shape) ** 4
  return Signals(
    advantages=np.tile([[-1.0], [2.0], [0.5]], (20, 8)).astype(np.float32),
    log_probs=log_pi.astype(np.float32),
    anchor_log_probs=log_mu.astype(np.float32),
    divergence=divergence.astype(np.float32),
    mask=np.ones(shape, bool),
    anchor_entropy=rng.uniform(0.01, 3.0, shape).astype(np.float32),
  )


# Eight tokens: each sign of A, toward and away, inside and outside.
#   pi/mu                1.5   1.5   1.3   0.5   0.7   0.9   0.7   1.5
#   mu - pi                                      .15   .05   .15
BY_HAND = row_of(
  advantages=[1, 1, 2, 1, -1, -1, -0.5, -1],
  log_probs=np.log([0.6, 0.6, 0.39, 0.2, 0.35, 0.45, 0.35, 0.6]),
  anchor_log_probs=np.log([0.4, 0.4, 0.3, 0.4, 0.5, 0.5, 0.5, 0.4]),
  divergence=[0.31, 0.29, 0.9, 0.9, 0.11, 0.11, 0.09, 0.9],
)


def exchange(signals, other, columns):
  """What the other signals say of those columns; the mask stays."""
  taken = np.zeros(signals.mask.shape, bool)
  taken[:, columns] = True
  mixed = jax.tree.map(lambda a, b: np.where(taken, b, a), signals, other)
  return dataclasses.replace(mixed, mask=signals.mask)
