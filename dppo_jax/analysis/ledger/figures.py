"""Plots of a ledger: ratio and TV against mu (DPPO Fig. 2), and masked tokens.

Colors: gray kept, wine masked with A < 0, teal masked with A > 0: not those of
rules, which `boundaries` draws as dashed lines.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from dppo_jax.analysis.ledger import boundaries, tables
from dppo_jax.analysis.ledger.replay import Decided
from dppo_jax.runtime.ledger.record import Record
from dppo_jax.runtime.reporting import palette, plots
from dppo_jax.runtime.storage.files import open_atomically

# Maximum number of kept tokens plotted, and of masked tokens per sign.
MAX_POINTS = 8000

_RATIO = 'ratio π / μ'
_TV = 'binary TV |π − μ|'
_MU = 'μ, probability of the sampler'
# Lower limit of probabilities on logarithmic axes.
_LEAST = 1e-6


def draw(record: Record, decided: Decided, path: pathlib.Path) -> int:
  """Number of tokens plotted, after writing the PNG of a rule.

  Args:
    record: the tokens.
    decided: decisions of a rule, recorded or replayed.
    path: of the PNG, replaced if it exists.
  """
  figure = plots.make_figure(15, 8.6, dpi=100)
  axes = figure.subplots(2, 3)
  total = tables.overall(record, decided)
  steps = np.unique(record.step)
  lost = ''
  if total.dropped > total.masked + 1e-6:
    share = total.dropped / max(total.num_tokens, 1)
    lost = f', {share:.2%} of the weight lost'
  figure.suptitle(
    f'{decided.rule.name}: {total.masked:,} of {total.num_tokens:,} tokens'
    f' masked ({total.fraction():.2%}){lost}, {len(steps)} steps from'
    f' {steps[0]} to {steps[-1]}\n{tables.describe(decided.rule)}',
    fontsize=11,
  )
  mu = np.exp(record.rollout_log_probs.astype(np.float64))
  pi = np.exp(record.log_probs.astype(np.float64))
  moved = record.log_probs.astype(np.float64) - record.rollout_log_probs
  ratio, tv = np.exp(np.clip(moved, -80, 80)), np.abs(pi - mu)
  groups = _groups(record, decided)
  floor = np.maximum(mu, _LEAST)
  _scatter(axes[0, 0], groups, floor, ratio, _MU, _RATIO, 'Ratio against μ')
  _scatter(axes[0, 1], groups, floor, tv, _MU, _TV, 'TV against μ')
  _scatter(axes[0, 2], groups, tv, ratio, _TV, _RATIO, 'Ratio against TV')
  _scatter(axes[1, 0], groups, mu, pi, _MU, 'π', 'The two policies')
  axes[1, 0].plot([0, 1], [0, 1], color=palette.GRAY, lw=0.6)
  logs = ((0, 0, 'x'), (0, 0, 'y'), (0, 1, 'x'), (0, 2, 'y'))
  for row, column, which in logs:
    axes[row, column].set(**{f'{which}scale': 'log'})
  _draw_boundaries(axes, decided)
  for row, column, which in logs:
    plots.scale_log(axes[row, column], which)
  axes[1, 0].legend(fontsize=9, loc='upper left', markerscale=2, framealpha=0.9)
  ranges = tables.by_mu(record, decided)
  _bars(axes[1, 1], ranges, 'Masked by range of μ')
  tenths = tables.by_position(record, decided)
  _bars(axes[1, 2], tenths, 'Masked by position in the completion')
  with open_atomically(path) as file:
    figure.savefig(file, format='png')
  return sum(len(tokens) for _, _, tokens in groups)


def _groups(
  record: Record, decided: Decided
) -> list[tuple[str, str, np.ndarray]]:
  """Label, color and tokens i64 [m] of each kind, those kept first."""
  masked, whole = decided.masked(), decided.keep == 1
  rng = np.random.default_rng(0)
  kinds = (
    ('kept', palette.LIGHT, whole),
    ('weighed, 0 < M < 1', palette.INSIDE, ~masked & ~whole),
    ('masked, A < 0', palette.NEGATIVE, masked & (record.advantages < 0)),
    ('masked, A > 0', palette.POSITIVE, masked & (record.advantages > 0)),
    ('masked, A = 0', palette.BLACK, masked & (record.advantages == 0)),
  )
  groups = []
  for label, color, tokens in kinds:
    places = np.flatnonzero(tokens)
    label = f'{label}: {len(places):,}'
    if len(places) > MAX_POINTS:
      places = rng.choice(places, MAX_POINTS, replace=False)
      label += f', {MAX_POINTS:,} drawn'
    if len(places):
      groups.append((label, color, places))
  return groups


def _scatter(
  axis: Any,
  groups: Sequence[tuple[str, str, np.ndarray]],
  x: np.ndarray,
  y: np.ndarray,
  x_label: str,
  y_label: str,
  title: str,
) -> None:
  for label, color, tokens in groups:
    axis.scatter(
      x[tokens], y[tokens], s=7, alpha=0.5, lw=0, color=color, label=label
    )
  plots.dress(axis, title, x_label, y_label)


def _draw_boundaries(axes: Any, decided: Decided) -> None:
  """Draws the thresholds of the rule, where these planes can show them."""
  mu = np.geomspace(_LEAST, 1, 400)
  places = [axes[0, 0], axes[0, 1], axes[0, 2], axes[1, 0]]
  limits: list[Any] = [[axis.get_xlim(), axis.get_ylim()] for axis in places]
  for label, pi in boundaries.of_rule(decided.rule.loss, mu):
    ratio, tv = pi / mu, np.abs(pi - mu)
    line = '--' if 'A > 0' in label else ':'
    for place, x, y in zip(
      range(len(places)), (mu, mu, tv, mu), (ratio, tv, ratio, pi), strict=True
    ):
      places[place].plot(x, y, line, color=palette.BLACK, lw=1.1, label=label)
      across, up = limits[place]
      limits[place][1] = _reach(across, up, x, y)
  for axis, (x, y) in zip(places, limits, strict=True):
    axis.set(xlim=x, ylim=y)


def _reach(
  x_limits: tuple[float, float],
  y_limits: tuple[float, float],
  x: np.ndarray,
  y: np.ndarray,
) -> tuple[float, float]:
  """Limits of y that show a boundary where it is next to the tokens."""
  low, high = y_limits
  here = y[(x >= x_limits[0]) & (x <= x_limits[1]) & np.isfinite(y) & (y > 0)]
  if not here.size or np.any((here > low) & (here < high)):
    return low, high
  if here.min() >= high:
    return low, 1.1 * float(here.min())
  return float(here.max()) / 1.1, high


def _bars(axis: Any, shares: Sequence[tables.Share], title: str) -> None:
  """Draws masked shares per sign of A, with token counts above."""
  if not any(s.masked_negative or s.masked_positive for s in shares):
    plots.dress(axis, title, '', '')
    plots.say_nothing(axis, 'no token with A < 0 or A > 0 is masked')
    return
  places = np.arange(len(shares))
  signs = ((-0.2, palette.NEGATIVE, '<'), (0.2, palette.POSITIVE, '>'))
  for shift, color, sign in signs:
    if sign == '<':
      parts = [(s.masked_negative, s.negative) for s in shares]
    else:
      parts = [(s.masked_positive, s.positive) for s in shares]
    heights = [100 * part / max(whole, 1) for part, whole in parts]
    label = f'of the tokens with A {sign} 0'
    bars = axis.bar(places + shift, heights, 0.4, color=color, label=label)
    counts = [f'{part:,}' if part else '' for part, _ in parts]
    axis.bar_label(bars, counts, fontsize=7, color=color, padding=1)
  # Room for the legend, and no axis that looks as if it went on below 0.
  axis.set_ylim(0, 1.3 * axis.get_ylim()[1])
  axis.set_xticks(places, [s.label for s in shares], rotation=30, ha='right')
  plots.dress(axis, title, '', '% masked (above: tokens)')
  axis.legend(fontsize=9, frameon=False)
