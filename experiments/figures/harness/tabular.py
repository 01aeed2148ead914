"""Number of refreshes of mu until a rare good token is likely.

A softmax over V actions, of which one is good and has probability p0 at first.
Per refresh of mu, its probability grows by at most a factor 1 + epsilon under
the ratio clip, and by at most delta under Binary TV (DPPO section 4.2):

  clip   n = ceil( ln(1/2 / p0) / ln(1 + epsilon) )
  TV     n = ceil( (1/2 - p0) / delta )

Both count an ascent that only the mask stops. `by_gradient` uses expected
gradients of all actions and a weak inner optimizer, which may be the limit
instead.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
import math

from dppo_jax.analysis import panels
from dppo_jax.analysis.panels import Panel
from dppo_jax.analysis.table import Points, Row

EPSILON_LOW, EPSILON_HIGH, DELTA_TV, DELTA_KL = 0.2, 0.28, 0.2, 0.05
STARTS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
# V, p0, updates between refreshes, step size.
OPTIMIZERS = (
  (100, 1e-2, 200, 0.5),
  (1000, 1e-3, 200, 0.5),
  (10000, 1e-4, 200, 0.5),
  (32000, 1e-5, 200, 0.5),
  (100, 1e-2, 16, 1.0),
  (1000, 1e-3, 16, 1.0),
  (10000, 1e-4, 16, 1.0),
  (32000, 1e-5, 16, 1.0),
)
Violated = Callable[[float, float], bool]  # (mu, pi) -> violated.
_LIKELY = 0.5
_LOGIT_STEP = 0.005
_MAX_REFRESHES = 1000


def _kl(mu: float, pi: float) -> float:
  """KL of Bernoulli mu from Bernoulli pi (eq. 14), both in (0, 1)."""
  rest = math.log1p(-mu) - math.log1p(-pi)
  return mu * math.log(mu / pi) + (1.0 - mu) * rest


RULES: Mapping[str, Violated] = {
  'GRPO-ClipHigher': lambda mu, pi: (
    not 1.0 - EPSILON_LOW <= pi / mu <= 1.0 + EPSILON_HIGH
  ),
  'DPPO-Binary-TV': lambda mu, pi: abs(pi - mu) > DELTA_TV,
  'DPPO-Binary-KL': lambda mu, pi: _kl(mu, pi) > DELTA_KL,
  'PG-IS': lambda mu, pi: False,
}


def by_mask(violated: Violated, start: float) -> int:
  """Refreshes until the good token has probability 1/2, by direct ascent.

  Its logit rises in steps of .005 until the mask binds; mu is then refreshed.

  Args:
    violated: (mu, pi) -> whether a token whose probability rises is masked.
    start: p0, in (0, 1/2).
  """
  logit, count = math.log(start) - math.log1p(-start), 0
  while _sigmoid(logit) < _LIKELY:
    mu, count = _sigmoid(logit), count + 1
    while _sigmoid(logit) < _LIKELY and not violated(mu, _sigmoid(logit)):
      logit += _LOGIT_STEP
  return count


def by_gradient(
  violated: Violated, num_actions: int, start: float, updates: int, size: float
) -> int:
  """Refreshes until probability 1/2, by expected policy gradients.

  The reward is 1 for the good action and 0 for the others, which have equal
  logits; advantages are divided by the standard deviation.

  Args:
    violated: (mu, pi) -> whether a token that moves away from mu is masked.
    num_actions: V.
    start: p0.
    updates: gradient steps between refreshes.
    size: step size.

  Returns:
    Number of refreshes; at most 1000.
  """
  others = num_actions - 1
  # Logits of the good action and of each other one.
  good, other = math.log(start) - math.log1p(-start) + math.log(others), 0.0
  count = 0
  pi = _two_kinds(good, other, others)
  while pi[0] < _LIKELY and count < _MAX_REFRESHES:
    mu, count = pi, count + 1
    spread = math.sqrt(mu[0] * (1.0 - mu[0]))
    advantages = (1.0 - mu[0]) / spread, -mu[0] / spread
    for _ in range(updates):
      if pi[0] >= _LIKELY:
        break
      weights = [
        0.0 if a * (p - m) > 0 and violated(m, p) else p * a
        for m, p, a in zip(mu, pi, advantages, strict=True)
      ]
      total = weights[0] + others * weights[1]
      good += size * (weights[0] - total * pi[0])
      other += size * (weights[1] - total * pi[1])
      pi = _two_kinds(good, other, others)
  return count


def rows() -> Iterator[Row]:
  """Rows per rule and start, then rows per rule and optimizer.

  Yields:
    'problem' ('ascent' or 'gradient'), 'variant', 'label', 'start' and
    'refreshes'.
  """
  for variant, violated in RULES.items():
    for start in STARTS:
      yield {
        'problem': 'ascent',
        'variant': variant,
        'label': f'{start:g}',
        'start': start,
        'refreshes': by_mask(violated, start),
      }
    for actions, start, updates, size in OPTIMIZERS:
      yield {
        'problem': 'gradient',
        'variant': variant,
        'label': f'V {actions}, {updates} × {size:g}',
        'start': start,
        'refreshes': by_gradient(violated, actions, start, updates, size),
      }


def beside(trained: Iterable[Row]) -> Iterator[Row]:
  """Rows of runs, as problem 'transformer', followed by those of `rows`.

  Args:
    trained: without columns of those names; if there are none, because runs
      failed, nothing is yielded.
  """
  more = {'problem': 'transformer', 'label': '', 'start': '', 'refreshes': ''}
  found = [more | dict(row) for row in trained]
  yield from found
  if found:
    empty = dict.fromkeys(found[0], '')
    yield from (empty | dict(row) for row in rows())


def counted(points: Points) -> list[Panel]:
  """Panels of refreshes by start and by optimizer."""
  titles = {
    'ascent': 'Until p = .5, by p0 (mask only)',
    'gradient': 'Until p = .5, by a weak optimizer',
  }
  found = []
  for problem, title in titles.items():
    of_problem = points.where(problem=problem)
    panel = panels.grouped(
      of_problem,
      'refreshes',
      title,
      'refreshes of μ',
      ordered=problem == 'ascent',
    )
    found.append(dataclasses.replace(panel, y_log=True))
  return found


def _sigmoid(logit: float) -> float:
  return 1.0 / (1.0 + math.exp(-logit))


def _two_kinds(good: float, other: float, others: int) -> tuple[float, float]:
  """Probabilities of the good action and of each other action."""
  most = max(good, other)
  first, second = math.exp(good - most), math.exp(other - most)
  total = first + others * second
  return first / total, second / total
