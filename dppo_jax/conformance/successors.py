"""Golden files of 2026's successors: their results, and ours beside them.

A file is an .npz of inputs (`mu_logits`, `pi_logits` [B, T, V], `tokens`,
`advantages`, `mask` [B, T], `topk_ids` [B, T, K]) and of results, f64:

  score_centering/loss/MODE/SUM                      []  MODE none, tis, mis
  score_centering/grad_pi_logits/MODE/SUM            [B, T, V]  SUM topk, full
  unirl/RULE/loss/eps=BOUND                          []  RULE drpo, spo
  unirl/RULE/grad_pi_logits/eps=BOUND                [B, T, V]
  predictive/direction/SUM                           [B, T]
  predictive/keep/exact_kl/delta=DELTA               [B, T]
  exact_kl, exact_tv                                 [B, T]

Losses are means over completion tokens.
"""

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.base import Array, Batch
from dppo_jax.conformance.golden import GoldenError, load_arrays
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

# Inputs, and their axes.
INPUTS = {
  'mu_logits': 'BTV',
  'pi_logits': 'BTV',
  'tokens': 'BT',
  'advantages': 'BT',
  'mask': 'BT',
  'topk_ids': 'BTK',
}
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


def is_of_successors(arrays: Mapping[str, np.ndarray]) -> bool:
  """Whether a golden file has this format."""
  return 'old_logits' not in arrays and any(
    name.split('/')[0] in ('score_centering', 'predictive') for name in arrays
  )


def split_folder(
  folder: pathlib.Path,
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
  """Golden files of a folder: of this format, and the others."""
  paths = sorted(folder.glob('*.npz')) if folder.is_dir() else []
  mine = []
  for path in paths:
    try:
      if is_of_successors(load_arrays(path)):
        mine.append(path)
    except GoldenError:
      continue  # Reported by the reader of the other format.
  return mine, [path for path in paths if path not in mine]


def compare_file(path: pathlib.Path) -> list[Check]:
  """Every result of a file against ours.

  Raises:
    GoldenError: an array is missing, has another shape or an unknown name.
  """
  arrays = load_arrays(path)
  _check(path.name, arrays)
  results = {k: v for k, v in arrays.items() if k not in INPUTS}
  ours = _Ours(arrays)
  return [
    Check(path.name, name, *ours.error(name, value))
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


def _check(file: str, arrays: Mapping[str, np.ndarray]) -> None:
  missing = [name for name in INPUTS if name not in arrays]
  if missing:
    raise GoldenError(
      f'{file}: missing {", ".join(missing)}; expected all of'
      f' {", ".join(INPUTS)}.'
    )
  if arrays['mu_logits'].ndim != 3 or arrays['topk_ids'].ndim != 3:
    raise GoldenError(f'{file}: mu_logits, topk_ids: expected three axes.')
  sizes = dict(zip('BTV', arrays['mu_logits'].shape, strict=True))
  sizes['K'] = arrays['topk_ids'].shape[2]
  for name, axes in INPUTS.items():
    expected = tuple(sizes[axis] for axis in axes)
    if arrays[name].shape != expected:
      raise GoldenError(
        f'{file}: {name}: got shape {arrays[name].shape}, expected {expected}.'
      )
  for name in ('tokens', 'topk_ids'):
    array = arrays[name]
    integers = array.dtype.kind in 'iu'
    if not integers or array.min() < 0 or array.max() >= sizes['V']:
      raise GoldenError(
        f'{file}: {name}: expected integers from 0 to {sizes["V"] - 1}.'
      )


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

  def error(self, name: str, theirs: np.ndarray) -> tuple[float, float]:
    """Error of ours, and what is allowed.

    Raises:
      GoldenError: no such result, or another shape.
    """
    head, *rest = name.split('/')
    if head in ('exact_kl', 'exact_tv'):
      ours = self._movement(head).divergence
      return self._of_values(ours, theirs)
    if head == 'predictive' and rest[0] == 'direction':
      return self._of_values(self._rate(rest[1]), theirs)
    if head == 'predictive' and rest[0] == 'keep':
      return self._of_masks(rest[1], _number(name, 'delta'), theirs)
    if head == 'score_centering' and rest[1] in _CENTERED:
      options = dict(_CENTERED[rest[1]])
      config = plain_config(
        options.pop('rule'), 'binary_tv', centering=_SUMS[rest[2]], **options
      )
      return self._of_loss(config, rest[0], theirs)
    if head == 'unirl' and rest[0] in ('drpo', 'spo'):
      bound = _number(name, 'eps')
      names = (
        ('soft_clip',) if rest[0] == 'spo' else ('delta_low', 'delta_high')
      )
      config = plain_config(rest[0], 'binary_tv', **dict.fromkeys(names, bound))
      return self._of_loss(config, rest[1], theirs, soft=(rest[0], bound))
    raise GoldenError(f'{name}: unknown result.')

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
    resolved = error <= _ROUNDING * float(size)
    return (0.0 if resolved else error / abs(float(theirs))), LOSS_BAR

  def _soft_terms(self, rule: str, bound: float) -> Array:
    """-A r + |A| c (r - 1)^2 / (2 bound), c = mu of DRPO and 1 of SPO."""
    mu, pi = (stats.log_probs for stats in self._recorded)
    r, a = jnp.exp(pi - mu), self._batch.advantages
    scale = jnp.exp(mu) if rule == 'drpo' else 1.0
    terms = -a * r + jnp.abs(a) * scale * (r - 1.0) ** 2 / (2.0 * bound)
    return jnp.where(self._mask, terms, 0.0) * self._weights


def _number(name: str, key: str) -> float:
  text = name.rpartition(f'{key}=')[2]
  try:
    return float(text)
  except ValueError as error:
    raise GoldenError(f'{name}: {key}={text!r}; a number.') from error
