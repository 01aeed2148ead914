"""Replay of any rule, divergence, threshold and anchor on a ledger.

Decisions use the functions of training. The run itself is fixed: its tokens,
and pi as trained under the recorded rule.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dppo_jax.base import Movement, TokenStats
from dppo_jax.learner.loss_config import LossConfig
from dppo_jax.learner.movement import measure
from dppo_jax.ops import trust_regions
from dppo_jax.ops.divergences import DIVERGENCES
from dppo_jax.ops.trust_regions import TRUST_REGIONS, Signals, Thresholds
from dppo_jax.runtime.config.build import build_experiment
from dppo_jax.runtime.ledger.record import Record
from dppo_jax.runtime.storage.workdir import overlay
from dppo_jax.suggestions import suggest

RECORDED = 'recorded'

# Thresholds that are scaled for a match, if a rule reads them.
_DELTAS = ('delta_low', 'delta_high')
_THRESHOLDS = (*_DELTAS, 'clip_low', 'clip_high')
# Powers of two that bound every scale: ratios end at e**80.
_LOG_SCALES = (-60.0, 130.0)
# Tokens' worth of weight that rounding a threshold may change.
_SAME = 0.005
_NUM_HALVINGS = 40  # Bisection steps: to 1e-10 of a scale; f32 resolves 1e-7.


class Rule(NamedTuple):
  """A named rule.

  Attributes:
    name: to print.
    loss: has the trust region.
  """

  name: str
  loss: LossConfig


class Decided(NamedTuple):
  """Decisions of a rule on the tokens of a record.

  Attributes:
    rule: the rule.
    divergence: f32 [n], in the unit of the divergence.
    keep: f32 [n], M.
  """

  rule: Rule
  divergence: np.ndarray
  keep: np.ndarray

  def masked(self) -> np.ndarray:
    """Tokens with M = 0, bool [n]; soft rules also down-weight others."""
    return self.keep == 0

  def dropped(self) -> np.ndarray:
    """Removed weight, 1 - M: f64 [n]."""
    return 1.0 - self.keep.astype(np.float64)


class Match(NamedTuple):
  """Thresholds at which a rule removes as much weight as another does.

  For a hard rule that is the number of masked tokens.

  Attributes:
    matched: the original rule.
    rule: with the new thresholds.
    thresholds: the scaled ones, by name.
    dropped: removed weight, sum of 1 - M.
    wanted: target of `dropped`; ties can make them differ.
  """

  matched: Rule
  rule: Rule
  thresholds: dict[str, float]
  dropped: float
  wanted: float


def resolve(
  config: Any,
  recorded: Mapping[str, Any],
  presets: Mapping[str, Mapping[str, Any]],
  text: str,
) -> Rule:
  """Rule described by a --rule flag, for a run.

  Args:
    config: the defaults, changed in place.
    recorded: config of the run.
    presets: settings by dotted path.
    text: '' for the run's own rule, or a preset, keys of section trust_region
      or both: 'cppo', 'cppo,w_min=1', 'rule=divergence,divergence=binary_kl';
      'delta' sets both bounds.

  Raises:
    ValueError: an unknown name, or a rule that is invalid for this run.
  """
  overlay(config, dict(recorded))
  config.mesh.update(data=-1, fsdp=1, tensor=1, expert=1)
  region = config.trust_region
  for number, part in enumerate(filter(None, text.split(','))):
    name, is_setting, value = part.strip().partition('=')
    if not is_setting:
      if name not in presets:
        raise ValueError(f'--rule: unknown {name!r}{suggest(name, presets)}')
      if number:
        raise ValueError(
          f'--rule: {text!r} names preset {name!r} after other settings, which'
          ' it would replace; name it first.'
        )
      config.update_from_flattened_dict(dict(presets[name]))
      continue
    name = name.removeprefix('trust_region.')
    keys = ('delta_low', 'delta_high') if name == 'delta' else (name,)
    for key in keys:
      if key not in region:
        known = [*region.keys(), 'delta']
        raise ValueError(f'--rule: unknown key {key!r}{suggest(key, known)}')
      region[key] = _parse(key, value, region[key])
  try:
    loss = build_experiment(config, 1).loss
  except ValueError as error:
    raise ValueError(f'--rule: {text!r} on this run: {error}') from error
  return Rule(text or RECORDED, loss)


def own(record: Record, rule: Rule) -> Decided:
  """Recorded decisions of the run's rule."""
  return Decided(rule, record.divergence, record.keep)


def decide(record: Record, rule: Rule) -> Decided:
  """Decisions of another rule.

  The recorded divergence is not recomputed, so that the recorded rule uses
  exactly the same numbers.

  Raises:
    ValueError: the record lacks what the rule reads.
  """
  signals = measure_again(record, rule)
  place = (record.row, record.position)
  keep = trust_regions.keep_weights(rule.loss.rule, signals, rule.loss.bounds)
  return Decided(
    rule, np.asarray(signals.divergence)[place], np.asarray(keep)[place]
  )


def measure_again(record: Record, rule: Rule) -> Signals:
  """Inputs of a rule, f32 [B, R].

  Raises:
    ValueError: the record lacks what the rule reads.
  """
  loss = rule.loss
  _check_recorded(record, rule)
  place = (record.row, record.position)
  shape = (len(record.step), record.num_columns)

  def spread(values: np.ndarray | None) -> Any:
    if values is None:
      return None
    out = np.zeros((*shape, *values.shape[1:]), values.dtype)
    out[place] = values
    return jnp.asarray(out)

  top_ids = spread(record.top_ids)
  mu, top_mu = record.rollout_log_probs, record.rollout_top_log_probs
  if loss.anchor == 'recomputed':
    mu, top_mu = record.recomputed_log_probs, record.recomputed_top_log_probs
  anchor = TokenStats(
    log_probs=spread(mu), top_ids=top_ids, top_log_probs=spread(top_mu)
  )
  current = TokenStats(
    log_probs=spread(record.log_probs),
    top_ids=top_ids,
    top_log_probs=spread(record.top_log_probs),
  )
  recorded = _is_recorded(record, loss)
  movement = Movement(divergence=spread(record.divergence))
  if not recorded or loss.bounds.direction == 'predictive':
    measured, _ = measure(loss, spread(record.token), anchor, current)
    if recorded:  # The same numbers as in training, to the last bit.
      measured = dataclasses.replace(measured, divergence=movement.divergence)
    movement = measured
  return Signals(
    advantages=spread(record.advantages),
    log_probs=current.log_probs,
    anchor_log_probs=anchor.log_probs,
    divergence=movement.divergence,
    mask=spread(np.ones(len(record.row), bool)),
    rate=movement.rate,
    anchor_entropy=spread(record.rollout_entropy),
  )


def match(record: Record, rule: Rule, wanted: float) -> Match | None:
  """Match of a rule's thresholds to a removed weight.

  Deltas and ratio clips are scaled by one factor; other settings (such as
  CPPO's budget and weights) are unchanged. The removed weight, the number of
  masked tokens unless the rule is soft, decreases with the scale, so its steps
  are found by bisection. The result is the middle of the range with that
  weight, rounded to as few digits as possible.

  Args:
    record: has the tokens.
    rule: has the thresholds, all above 0.
    wanted: sum of 1 - M to remove.

  Returns:
    The nearest match; None for a rule without such a threshold, or whose
    divergence is known at its own alone.
  """
  names = [name for name in TRUST_REGIONS[rule.loss.rule].reads]
  names = [name for name in names if name in _THRESHOLDS]
  start = {name: getattr(rule.loss.bounds, name) for name in names}
  certified = DIVERGENCES[rule.loss.divergence].certified
  if not names or min(start.values()) <= 0 or certified:
    return None
  signals = measure_again(record, rule)

  def bounds_at(scale: float, digits: int = 17) -> Thresholds:
    scaled = {
      name: float(f'{scale * value:.{digits}g}')
      for name, value in start.items()
    }
    if 'clip_low' in scaled:  # Ratios are nonnegative.
      scaled['clip_low'] = min(scaled['clip_low'], 1.0)
    return dataclasses.replace(rule.loss.bounds, **scaled)

  def dropped_at(bounds: Thresholds) -> float:
    keep = trust_regions.keep_weights(rule.loss.rule, signals, bounds)
    dropped = jnp.where(signals.mask, 1.0 - keep, 0.0)
    return float(np.sum(np.asarray(dropped), dtype=np.float64))

  def dropped_by(scale: float) -> float:
    return dropped_at(bounds_at(scale))

  before, first = _edge(dropped_by, wanted)
  last = _edge(dropped_by, wanted - 1)[0] if wanted else 2.0 * first
  options = [max((first + last) / 2, first), first, before]
  best = min(options, key=lambda scale: abs(dropped_by(scale) - wanted))
  dropped = dropped_by(best)
  bounds = next(
    bounds
    for bounds in (bounds_at(best, digits) for digits in range(2, 18))
    if abs(dropped_at(bounds) - dropped) <= _SAME
  )
  loss = dataclasses.replace(rule.loss, bounds=bounds)
  found = {name: getattr(bounds, name) for name in names}
  name = f'{rule.name}, matched'
  return Match(rule, Rule(name, loss), found, dropped, wanted)


def _edge(
  dropped_by: Callable[[float], float], most: float
) -> tuple[float, float]:
  """Scales just below and above the first that removes at most so much.

  Args:
    dropped_by: removed weight of a scale; never increases with it.
    most: the weight.
  """
  low, high = _LOG_SCALES
  for _ in range(_NUM_HALVINGS):
    middle = (low + high) / 2
    if dropped_by(2.0**middle) <= most:
      high = middle
    else:
      low = middle
  return 2.0**low, 2.0**high


def relatives(record: Record, rule: Rule) -> list[Rule]:
  """The rule with every divergence that this record can replay.

  A rule that reads no divergence is replaced by rule 'divergence'.
  """
  kind = rule.loss.rule
  if not TRUST_REGIONS[kind].reads_divergence:
    kind = 'divergence'
  found = []
  for name, row in DIVERGENCES.items():
    if row.certified:  # With all ids it is the exact one.
      continue
    loss = dataclasses.replace(rule.loss, rule=kind, divergence=name)
    relative = Rule(f'{kind} on {name}', loss)
    if not list(_missing(record, relative)):
      found.append(relative)
  return found


def _measured(region: Mapping[str, Any]) -> Sequence[str]:
  """Settings of a divergence other than the two policies."""
  axes = [region['divergence'], region['anchor']]
  if DIVERGENCES[region['divergence']].records == 'top_k':
    axes.append(region['top_k_set'])
  return axes


def _is_recorded(record: Record, loss: LossConfig) -> bool:
  """Whether the recorded D is what the rule compares.

  A certified one is known at its own thresholds only.
  """
  region = record.trust_region
  if _measured(region) != _measured(vars(loss)):
    return False
  own = all(getattr(loss.bounds, name) == region[name] for name in _DELTAS)
  return own or not DIVERGENCES[loss.divergence].certified


def _missing(record: Record, rule: Rule) -> Sequence[str]:
  loss, lacks = rule.loss, []
  top_k = 0 if record.top_ids is None else record.top_ids.shape[1]
  measured = DIVERGENCES[loss.divergence]
  records = measured.records
  if loss.bounds.direction == 'predictive' and measured.rate is None:
    lacks.append(
      f"direction 'predictive' on {loss.divergence!r} is 'away': use that, or a"
      ' Top-K or exact divergence'
    )
  if records == 'top_k' and top_k == 0:
    lacks.append(
      f'divergence {loss.divergence!r} reads top-K log-probs and none were'
      ' recorded: train with sampling.top_k=20, or replay a binary one'
    )
  known = _is_recorded(record, loss) and loss.bounds.direction != 'predictive'
  most = record.vocab_size
  if record.support is not None:
    most = int(record.support.max(initial=0))
  if records == 'hidden' and top_k < most and not known:
    lacks.append(
      f'divergence {loss.divergence!r} reads all {most} log-probs and {top_k}'
      f' were recorded: train with sampling.top_k={most}, or replay a Top-K or'
      ' binary one'
    )
  row = TRUST_REGIONS[loss.rule]
  if row.reads_entropy and record.rollout_entropy is None:
    lacks.append(f'rule {loss.rule!r} reads the entropy and none was recorded')
  if loss.anchor == 'recomputed' and record.recomputed_log_probs is None:
    lacks.append(
      'it is anchored on the recomputed policy and this run, whose'
      " trust_region.anchor is 'rollout', recorded none: add anchor=rollout,"
      " or train with trust_region.anchor='recomputed'"
    )
  return lacks


def _check_recorded(record: Record, rule: Rule) -> None:
  lacks = _missing(record, rule)
  if lacks:
    raise ValueError(f'--rule: cannot replay {rule.name!r}: {"; ".join(lacks)}')


def _parse(key: str, value: str, current: Any) -> Any:
  if not isinstance(current, float):
    return value
  try:
    return float(value)
  except ValueError as error:
    raise ValueError(f'--rule: {key}={value!r}; a number.') from error
