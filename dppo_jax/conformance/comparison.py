"""Comparison of our trust regions with the authors' code, per token.

Every result of a golden file is recomputed with this package's functions. A
mask may differ within 1e-6 of a threshold; losses and gradients within a
relative tolerance, see `verdict`. A larger difference is still explained if it
comes from a cancellation that f32 cannot resolve.
"""

from collections.abc import Iterator, Sequence
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dppo_jax.conformance import authors, reproduction
from dppo_jax.conformance.golden import Golden, GoldenError
from dppo_jax.conformance.verdict import (
  GRADIENT_BAR,
  LOSS_BAR,
  MARGIN,
  VALUE_BAR,
  Agreement,
  Report,
  Tally,
  empty_report,
)
from dppo_jax.ops import trust_regions


def compare(files: Sequence[Golden]) -> Report:
  """Report on every result of every file.

  Raises:
    GoldenError: a file holds no results, or a loss or a gradient without the
      array it goes with.
  """
  _check_complete(files)
  report = empty_report([golden.name for golden in files])
  for golden in files:
    _Comparison(golden, report).run()
  return report


def _check_complete(files: Sequence[Golden]) -> None:
  problems = []
  for golden in files:
    lone = {}
    for key in golden.results:
      result = authors.parse(key)
      if result is not None and result.kind != 'mask':
        for partner in authors.partners(key, result):
          if partner not in golden.results:
            lone.setdefault(partner, key)
    problems += [
      f'{golden.name}: missing {partner}; got {key}, expected both.'
      for partner, key in lone.items()
    ]
    if not golden.results:
      known = ', '.join(f'{name}/…' for name in authors.MODES)
      problems.append(
        f'{golden.name}: missing results; got the inputs alone, expected arrays'
        f' named {known}.'
      )
  if problems:
    raise GoldenError('\n'.join(problems))


class _Comparison:
  """Comparison of one file; results are added to the report."""

  def __init__(self, golden: Golden, report: Report):
    self._golden = golden
    self._report = report
    self._measured = reproduction.measure(golden.inputs)
    self._keep = dict(reproduction.decide_all(self._measured))
    self._losses: dict[authors.Result, reproduction.Loss] = {}

  def run(self) -> None:
    """Compares everything in the file."""
    self._compare_values()
    known, present = [], set()
    for key in self._golden.results:
      result = authors.parse(key)
      if result is None:
        self._line(
          self._report.unexplained,
          f'{key}: unknown mode; known: {_known_names(key)}',
        )
      else:
        known.append((result.kind != 'mask', key, result))
        present.add((result.implementation, result.mode))
    for _, key, result in sorted(known):  # Masks first: losses follow them.
      if result.kind == 'mask':
        self._compare_mask(key, result)
      else:
        self._compare_loss(key, result)
    absent = '; '.join(_absent(present))
    if absent:
      self._line(self._report.absent, absent)
    if not self._golden.inputs.mask.any():
      self._line(
        self._report.explained,
        'no completion token at all; 0 / 0 of their means is 0 in ours',
      )

  def _line(self, lines: list[str], text: str) -> None:
    lines.append(f'{self._golden.name}: {text}')

  def _fail(self, tally: Tally, text: str) -> None:
    tally.unexplained += 1
    self._line(self._report.unexplained, text)

  def _compare_values(self) -> None:
    """Compares log-probs and Top-K divergences, which every file has."""
    inputs = self._golden.inputs
    found, spread = reproduction.values_of(
      jnp.asarray(inputs.mu_logits, jnp.float32),
      jnp.asarray(inputs.old_logits, jnp.float32),
      self._measured,
    )
    for name, value in found.items():
      ours = np.asarray(value, np.float64)
      theirs = np.asarray(getattr(inputs, name), np.float64)
      difference = _difference(ours, theirs)
      scale = np.maximum(1.0, np.abs(theirs))
      agreement = self._report.agreements.setdefault(name, Agreement())
      agreement.values += theirs.size
      agreement.error = _worst(agreement.error, difference)
      agreement.relative_error = _worst(
        agreement.relative_error, difference / scale
      )
      beyond = ~(difference <= VALUE_BAR * scale)
      resolved = difference <= VALUE_BAR * scale + np.asarray(spread[name])
      for where in map(tuple, np.argwhere(beyond)):
        line = (
          f'{name}: {_place(where)}: ours {ours[where]:.8g}, theirs'
          f' {theirs[where]:.8g}'
        )
        if resolved[where]:
          line += f'; {_BY_ROUNDING}'
          self._line(self._report.explained, line)
        else:
          self._line(self._report.unexplained, line)

  def _compare_mask(self, key: str, result: authors.Result) -> None:
    tally = self._report.tallies[result.implementation, result.mode]
    theirs = self._golden.results[key]
    at = (result.implementation, result.mode, result.anchor)
    keep = np.array(self._keep[at])
    completion = self._golden.inputs.mask > 0
    zero = self._golden.inputs.advantages == 0
    tally.masks += int((completion & ~zero).sum())
    tally.zero_advantage += int((completion & zero).sum())
    differ = keep != theirs
    if not differ.any():
      return
    signals = reproduction.signals_of(result, self._measured)
    distance = reproduction.distance(result, self._measured, theirs)
    rounded = np.zeros_like(differ)
    for other in reproduction.decide_rounded(result, self._measured):
      rounded |= np.asarray(other) == theirs
    for where in map(tuple, np.argwhere(differ)):
      tally.differ += 1
      line = (
        f'{key}: {_place(where)}: ours {keep[where]:g}, theirs'
        f' {theirs[where]:g}; {_facts(signals, where)}'
      )
      if distance[where] <= MARGIN:
        line += f'; within {distance[where]:.0e} of its threshold'
      elif rounded[where]:
        line += f'; {_BY_ROUNDING}'
      else:
        self._fail(tally, line)
        continue
      tally.explained += 1
      self._line(self._report.explained, line)
      keep[where] = theirs[where]  # As their loss has it.
    self._keep[at] = jnp.asarray(keep)

  def _loss(self, result: authors.Result) -> reproduction.Loss:
    """Our loss and gradient, computed once for both."""
    at = result._replace(kind='loss')
    if at not in self._losses:
      keep = self._keep[result.implementation, result.mode, result.anchor]
      self._losses[at] = reproduction.loss_of(result, self._measured, keep)
    return self._losses[at]

  def _across(self, result: authors.Result) -> Iterator[reproduction.Loss]:
    """Our losses with near-threshold decisions flipped, without their mask."""
    keep = self._keep[result.implementation, result.mode, result.anchor]
    for other in (
      *reproduction.decide_across(result, self._measured, MARGIN),
      *reproduction.decide_rounded(result, self._measured),
    ):
      # A soft weight moves a little with its inputs and decides nothing.
      if bool(jnp.any(jnp.abs(other - keep) == 1.0)):
        yield reproduction.loss_of(result, self._measured, other)

  def _compare_loss(self, key: str, result: authors.Result) -> None:
    tally = self._report.tallies[result.implementation, result.mode]
    theirs = self._golden.results[key].astype(np.float64)
    if not self._golden.inputs.mask.any():
      theirs = np.nan_to_num(theirs, nan=0.0)
    is_loss = result.kind == 'loss'
    error_of = _loss_error if is_loss else _gradient_error
    error = error_of(self._loss(result), theirs)
    if not error.passes:
      for other in map(
        lambda loss: error_of(loss, theirs), self._across(result)
      ):
        if other.passes:
          self._line(
            self._report.explained,
            f'{key}: equal with decisions within {MARGIN:g} of their threshold'
            ' taken the other way',
          )
          error = other
          break
    if is_loss:
      tally.losses += 1
      tally.loss_error = _worst(tally.loss_error, error.relative)
    else:
      tally.gradients += 1
      tally.gradient_error = _worst(tally.gradient_error, error.relative)
      tally.gradient_max_error = _worst(tally.gradient_max_error, error.largest)
    if not error.passes:
      self._fail(tally, f'{key}: {error.text}')
    elif error.rounded:
      tally.rounded += 1
      self._line(self._report.explained, f'{key}: {error.text}; {_BY_ROUNDING}')


_BY_ROUNDING = 'terms cancel below what f32 resolves'


class _Error(NamedTuple):
  """Difference of ours from theirs.

  Attributes:
    relative: of the value, or of the norm.
    largest: largest difference over the largest of theirs.
    passes: whether it is within tolerance or explained.
    rounded: whether it is explained by f32 rounding only.
    text: the numbers.
  """

  relative: float
  largest: float
  passes: bool
  rounded: bool
  text: str


def _loss_error(loss: reproduction.Loss, theirs: np.ndarray) -> _Error:
  ours, published = float(loss.value), float(theirs)
  difference = abs(ours - published)
  relative = _ratio(difference, abs(published))
  resolved = difference <= reproduction.ROUNDING * float(loss.terms)
  return _Error(
    relative=relative,
    largest=relative,
    passes=relative <= LOSS_BAR or resolved,
    rounded=relative > LOSS_BAR,
    text=(
      f'ours {ours:.8g}, theirs {published:.8g}: relative error'
      f' {relative:.2e}, allowed {LOSS_BAR:g}'
    ),
  )


def _gradient_error(loss: reproduction.Loss, theirs: np.ndarray) -> _Error:
  ours = np.asarray(loss.gradient, np.float64)
  difference = _difference(ours, theirs)
  norms = np.linalg.norm(difference), np.linalg.norm(theirs)
  relative = _ratio(float(norms[0]), float(norms[1]))
  largest = _ratio(float(difference.max()), float(np.abs(theirs).max()))
  within = max(relative, largest) <= GRADIENT_BAR
  bound = reproduction.ROUNDING * float(loss.coefficient)
  resolved = bool(difference.max() <= bound)
  where = np.unravel_index(np.argmax(difference), difference.shape)
  return _Error(
    relative=relative,
    largest=largest,
    passes=within or resolved,
    rounded=not within,
    text=(
      f'relative error {relative:.2e} of the norm, {largest:.2e} of the'
      f' largest, allowed {GRADIENT_BAR:g}; worst at {_place(where)}, logit'
      f' {where[2]}: ours {ours[where]:.8g}, theirs {theirs[where]:.8g}'
    ),
  )


def _difference(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
  """Absolute difference, 0 between equal infinities."""
  difference = np.zeros(theirs.shape)
  np.subtract(ours, theirs, out=difference, where=ours != theirs)
  return np.abs(difference)


def _ratio(difference: float, scale: float) -> float:
  """Relative error; 0 / 0 is 0."""
  if difference == 0:
    return 0.0
  return difference / scale if scale > 0 else math.inf


def _worst(so_far: float, now: Any) -> float:
  """The larger error; NaN counts as infinite."""
  largest = float(np.max(now))
  return max(so_far, math.inf if math.isnan(largest) else largest)


def _place(where: Sequence[Any]) -> str:
  return f'row {where[0]}, token {where[1]}'


def _facts(signals: trust_regions.Signals, where: tuple[Any, ...]) -> str:
  """Text of the inputs of a decision."""
  log_pi = float(signals.log_probs[where])
  log_mu = float(signals.anchor_log_probs[where])
  return (
    f'A = {float(signals.advantages[where]):.4g},'
    f' anchor {math.exp(log_mu):.7g}, pi {math.exp(log_pi):.7g},'
    f' D = {float(signals.divergence[where]):.7g}'
  )


def _known_names(key: str) -> str:
  implementation = key.split('/')[0]
  names = authors.MODES.get(implementation, authors.MODES)
  return ', '.join(names)


def _absent(present: set[tuple[str, str]]) -> Iterator[str]:
  """Modes without an array in a file."""
  for implementation, rows in authors.MODES.items():
    modes = [mode for mode in rows if (implementation, mode) not in present]
    if len(modes) == len(rows):
      yield f'{implementation}, all of it'
    elif modes:
      yield f'{implementation} {", ".join(modes)}'
