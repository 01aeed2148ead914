"""Results of 2026's successors in golden files, and ours beside them.

`successor_files.py` has the format.
"""

from collections.abc import Mapping
import dataclasses
import math
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.base import Array, Batch
from dppo_jax.conformance import successor_files
from dppo_jax.conformance.successor_files import INPUTS, Result
from dppo_jax.conformance.verdict import (
  GRADIENT_BAR,
  LOSS_BAR,
  MARGIN,
  VALUE_BAR,
)
from dppo_jax.learner import movement
from dppo_jax.learner.loss import make_targets, reference_loss
from dppo_jax.learner.loss_config import LossConfig
from dppo_jax.learner.standalone import plain_config
from dppo_jax.ops import trust_regions
from dppo_jax.ops.log_probs import token_stats

# Options of the loss by mode of `score_centering`.
_CENTERED: Mapping[str, dict[str, Any]] = {
  'none': dict(rule='none', importance='none'),
  'tis': dict(rule='none', ratio_cap=2.0),
  'mis': dict(
    rule='ratio_clip',
    direction='any',
    clip_low=0.5,
    clip_high=4.0,
    centering_mask='candidate',
  ),
}
_SUMS = {'topk': 'topk', 'full': 'exact'}
# What f32 resolves of a sum, as a share of the magnitudes added up.
_ROUNDING = 2.0**-22


class Check(NamedTuple):
  """One array compared.

  Attributes:
    file: name of the file.
    name: of the array.
    error: largest error in the unit of `bar`; of masks, unexplained tokens.
    bar: what is allowed.
  """

  file: str
  name: str
  error: float
  bar: float

  @property
  def passes(self) -> bool:
    """Whether the error is within the bar."""
    return self.error <= self.bar


def compare_file(path: pathlib.Path) -> list[Check]:
  """Every result of a file against ours.

  Raises:
    GoldenError: the file cannot be compared; see `successor_files.read_file`.
  """
  arrays = successor_files.read_file(path)
  results = {k: v for k, v in arrays.items() if k not in INPUTS}
  ours = _Ours(arrays)
  return [
    Check(path.name, name, *ours.error(successor_files.parse(name), value))
    for name, value in sorted(results.items())
  ]


def describe(checks: list[Check]) -> str:
  """Lines to print: the worst error of each kind, and what does not conform."""
  lines = [f'Successors of 2026: {len(checks)} arrays']
  worst: dict[str, Check] = {}
  for check in checks:
    kind = check.name.split('=')[0]
    if kind not in worst or check.error > worst[kind].error:
      worst[kind] = check
  for kind, check in sorted(worst.items()):
    lines.append(f'  {kind:44} error {check.error:.1e}, allowed {check.bar:g}')
  failed = [check for check in checks if not check.passes]
  for check in failed:
    lines.append(
      f'{check.file}: {check.name}: error {check.error:.2e}, allowed'
      f' {check.bar:g}'
    )
  lines.append('all conform' if not failed else f'{len(failed)} do not conform')
  return '\n'.join(lines)


def to_json(checks: list[Check]) -> dict[str, Any]:
  """The checks as JSON has them; errors are 'inf' or 'nan' where they are."""

  def plain(error: float) -> float | str:
    return error if math.isfinite(error) else str(error)

  return {
    'conforms': all(check.passes for check in checks),
    'successors': [
      {**c._asdict(), 'error': plain(c.error), 'passes': c.passes}
      for c in checks
    ],
  }


class _Ours:
  """Results of this package on a file's inputs, in f32."""

  def __init__(self, arrays: Mapping[str, np.ndarray]):
    self._pi = jnp.asarray(arrays['pi_logits'], jnp.float32)
    self._mu = jnp.asarray(arrays['mu_logits'], jnp.float32)
    self._tokens = jnp.asarray(arrays['tokens'], jnp.int32)
    self._mask = jnp.asarray(arrays['mask'] > 0)
    ids = jnp.asarray(arrays['topk_ids'], jnp.int32)
    every = jnp.broadcast_to(jnp.arange(self._mu.shape[-1]), self._mu.shape)
    self._recorded = [self._stats(z, ids) for z in (self._mu, self._pi)]
    self._whole = [self._stats(z, every) for z in (self._mu, self._pi)]
    self._batch = Batch(
      tokens=self._tokens,
      token_mask=self._mask,
      completion_mask=self._mask,
      advantages=jnp.asarray(arrays['advantages'], jnp.float32),
      rollout=self._recorded[0],
    )
    count = jnp.maximum(jnp.sum(self._mask), 1)
    self._weights = self._mask / count

  def error(self, result: Result, theirs: np.ndarray) -> tuple[float, float]:
    """Error of ours, and what is allowed."""
    head, *rest = result.parts
    if not rest:
      return self._of_values(self._movement(head).divergence, theirs)
    if head == 'predictive' and rest[0] == 'direction':
      return self._of_values(self._rate(rest[1]), theirs)
    if head == 'predictive':
      return self._of_masks(rest[1], result.bound, theirs)
    if head == 'score_centering':
      options = dict(_CENTERED[rest[1]])
      config = plain_config(
        options.pop('rule'), 'binary_tv', centering=_SUMS[rest[2]], **options
      )
      return self._of_loss(config, rest[0], theirs)
    rule, kind = rest
    names = ('soft_clip',) if rule == 'spo' else ('delta_low', 'delta_high')
    config = plain_config(
      rule, 'binary_tv', **dict.fromkeys(names, result.bound)
    )
    return self._of_loss(config, kind, theirs, soft=(rule, result.bound))

  def _stats(self, logits: Array, ids: Array) -> Any:
    return token_stats(
      logits, self._tokens, top_ids=ids, temperature=1.0, with_entropy=False
    )

  def _movement(self, divergence: str, **options: Any) -> Any:
    config = plain_config('divergence', divergence, **options)
    exact = movement.keeps_hidden(config)
    stats = self._whole if exact else self._recorded
    return movement.measure(config, self._tokens, *stats)[0]

  def _rate(self, kind: str) -> Array:
    if kind == 'exact':
      return self._movement('exact_kl', direction='predictive').rate
    return self._movement(
      'topk_kl',
      direction='predictive',
      predictive_tail=kind.removesuffix('_tail'),
      vocab_size=self._mu.shape[-1],
    ).rate

  def _of_values(self, ours: Array, theirs: np.ndarray) -> tuple[float, float]:
    return float(np.abs(np.asarray(ours) - theirs).max()), VALUE_BAR

  def _of_masks(
    self, divergence: str, delta: float, theirs: np.ndarray
  ) -> tuple[float, float]:
    """Tokens that differ beyond `MARGIN` of a threshold; none may."""
    moved = self._movement(divergence, direction='predictive')
    bounds = dataclasses.replace(
      trust_regions.open_thresholds(),
      direction='predictive',
      delta_low=delta,
      delta_high=delta,
    )
    signals = trust_regions.Signals(
      advantages=self._batch.advantages,
      log_probs=self._whole[1].log_probs,
      anchor_log_probs=self._whole[0].log_probs,
      divergence=moved.divergence,
      mask=self._mask,
      rate=moved.rate,
    )
    keep = trust_regions.keep_weights('divergence', signals, bounds)
    distance = jnp.minimum(jnp.abs(moved.divergence - delta), abs(moved.rate))
    differ = (np.asarray(keep) != theirs) & (np.asarray(distance) > MARGIN)
    return float(differ.sum()), 0.0

  def _of_loss(
    self,
    config: LossConfig,
    kind: str,
    theirs: np.ndarray,
    soft: tuple[str, float] | None = None,
  ) -> tuple[float, float]:
    targets = make_targets(config, self._batch, self._weights)

    def loss(logits: Array) -> Array:
      return reference_loss(config, logits, targets, self._mu)[0]

    if kind == 'grad_pi_logits':
      ours = np.asarray(jax.jit(jax.grad(loss))(self._pi), np.float64)
      norm = float(np.linalg.norm(theirs))
      error = float(np.linalg.norm(ours - theirs))
      return (error / norm if norm else error), GRADIENT_BAR
    if soft is not None:
      # The rows have the gradient of these losses, not their values.
      terms = self._soft_terms(*soft)
      value, size = jnp.sum(terms), jnp.sum(jnp.abs(terms))
    else:
      value = jax.jit(loss)(self._pi)
      terms = self._batch.advantages * self._recorded[1].log_probs
      size = jnp.sum(self._weights * jnp.abs(terms))
    error = abs(float(value) - float(theirs))
    if error <= _ROUNDING * float(size):
      return 0.0, LOSS_BAR
    return (error / abs(float(theirs)) if theirs else math.inf), LOSS_BAR

  def _soft_terms(self, rule: str, bound: float) -> Array:
    """-A r + |A| c (r - 1)^2 / (2 bound), c = mu of DRPO and 1 of SPO."""
    mu, pi = (stats.log_probs for stats in self._recorded)
    r, a = jnp.exp(pi - mu), self._batch.advantages
    scale = jnp.exp(mu) if rule == 'drpo' else 1.0
    terms = -a * r + jnp.abs(a) * scale * (r - 1.0) ** 2 / (2.0 * bound)
    return jnp.where(self._mask, terms, 0.0) * self._weights
