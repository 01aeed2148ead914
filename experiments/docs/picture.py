"""Draws docs/masks.png, the picture of README.md.

python -m experiments.docs.picture

The region that the ratio clip and two divergences mask in the (mu, pi) plane,
computed by the functions used in training.
"""

import dataclasses
import pathlib

import jax.numpy as jnp
from matplotlib import colors
import numpy as np

from dppo_jax.base import TokenStats
from dppo_jax.ops.divergences import DIVERGENCES
from dppo_jax.ops.trust_regions import (
  Signals,
  Thresholds,
  keep_weights,
  open_thresholds,
)
from dppo_jax.runtime.reporting import palette, plots

_PICTURE = pathlib.Path(__file__).resolve().parents[2] / 'docs/masks.png'
_SIDE = 401  # Cells per axis; no center lies on a bound.
_OPEN = open_thresholds()
PANELS = {
  'PPO, ratio clip .2': (
    'ratio_clip',
    'binary_tv',
    dataclasses.replace(_OPEN, clip_low=0.2, clip_high=0.2),
  ),
  'DPPO-Binary-TV .2': (
    'divergence',
    'binary_tv',
    dataclasses.replace(_OPEN, delta_low=0.2, delta_high=0.2),
  ),
  'DPPO-Binary-KL .05': (
    'divergence',
    'binary_kl',
    dataclasses.replace(_OPEN, delta_low=0.05, delta_high=0.05),
  ),
}


def masked(rule: str, divergence: str, thresholds: Thresholds) -> np.ndarray:
  """Cells of the plane where updates away from mu are masked: bool [pi, mu]."""
  axis = (np.arange(_SIDE) + 0.5) / _SIDE
  mu, pi = (jnp.log(p).reshape(-1, 1) for p in np.meshgrid(axis, axis))
  keep = keep_weights(
    rule,
    Signals(
      advantages=jnp.sign(pi - mu),  # Above the diagonal A > 0 moves away.
      log_probs=pi,
      anchor_log_probs=mu,
      divergence=DIVERGENCES[divergence].fn(
        jnp.zeros(mu.shape, jnp.int32),
        TokenStats(log_probs=mu),
        TokenStats(log_probs=pi),
      ),
      mask=jnp.ones(mu.shape, bool),
    ),
    thresholds,
  )
  return np.asarray(keep).reshape(_SIDE, _SIDE) < 1


def main() -> None:
  """Draws the picture."""
  figure = plots.make_figure(9.0, 3.4, dpi=130)
  axes = figure.subplots(1, len(PANELS), sharey=True)
  for axis, (title, settings) in zip(axes, PANELS.items(), strict=True):
    axis.imshow(
      masked(*settings),
      origin='lower',
      extent=(0, 1, 0, 1),
      cmap=colors.ListedColormap(
        ['#f3f4f6', palette.styles([title])[title].color]
      ),
      interpolation='nearest',
    )
    axis.plot([0, 1], [0, 1], color=palette.GRAY, linewidth=0.8)
    axis.set_title(title, fontsize=11)
    axis.set_xlabel('μ, when sampled')
    # Kept where masked is: black on every color, on a light ground.
    for place, text in ((0.04, 0.9), 'A > 0'), ((0.76, 0.05), 'A < 0'):
      axis.text(
        *place,
        text,
        fontsize=9,
        bbox={'facecolor': 'white', 'alpha': 0.8, 'lw': 0, 'pad': 1.5},
      )
  axes[0].set_ylabel('π, now')
  figure.suptitle('Colored: masked. Light: kept.', fontsize=10)
  figure.savefig(
    _PICTURE, metadata={'Software': None}, pil_kwargs={'optimize': True}
  )


if __name__ == '__main__':
  main()
