"""Verdicts compare means over a run: reward and |pi - mu| of two anchors.

Both are DPPO-Binary-KL. 'fp8' and 'int4' are samplers with weights of that
precision, in the stale setting; 'int4, 4 updates' has a quarter of the updates
per batch at 3e-4, so that mismatch dominates staleness. Effects: .05 and .005.
"""

import dataclasses

from dppo_jax.analysis import facets, panels
from dppo_jax.analysis.panels import Panel
from dppo_jax.analysis.table import Points
from dppo_jax.experiments.figures import papers, settings
from dppo_jax.experiments.figures.harness import command
from dppo_jax.experiments.figures.harness.contrasts import contrast
from dppo_jax.experiments.figures.harness.figure import Figure

_FRESH = {'learner.num_minibatches': 4, 'optimizer.learning_rate': 3e-4}
_SAMPLERS = {
  'fp8': {'sampling.precision': 'fp8'},
  'int4': {'sampling.precision': 'int4'},
  'int4, 4 updates': {'sampling.precision': 'int4', **_FRESH},
}
_KL = settings.METHODS['DPPO-Binary-KL']
_ANCHORS = {
  'rollout': _KL,
  'recomputed': {**_KL, 'trust_region.anchor': 'recomputed'},
}
_GROUPS = {
  s: {f'{s}: {a}': f'DPPO-Binary-KL, {a} anchor' for a in _ANCHORS}
  for s in _SAMPLERS
}


def _panels(points: Points) -> list[Panel]:
  curves = (
    ('reward', 'Reward', 'mean, by that sampler'),
    ('mean_abs', 'Mean of |π − μ|', 'probability'),
  )
  over = [panels.over_steps(points, *curve) for curve in curves]
  split = [part for panel in over for part in facets.split(panel, _GROUPS)]
  bars = panels.bars(points, 'masked', 'Masked', 'share of tokens')
  shown = {k: v for labels in _GROUPS.values() for k, v in labels.items()}
  series = [
    dataclasses.replace(one, label=shown[one.label]) for one in bars.series
  ]
  return [*split, dataclasses.replace(bars, series=series)]


FIGURE = Figure(
  name='anchor',
  title='Anchor of the trust region under a mismatched sampler',
  paper='DPPO Fig. 4',
  claim='anchored on recomputed probabilities, DPPO-KL loses control of'
  ' |π − μ| and its reward collapses; anchored on the rollout policy it is'
  ' stable.',
  variants={
    f'{sampler}: {anchor}': {**preset, **changes}
    for sampler, changes in _SAMPLERS.items()
    for anchor, preset in _ANCHORS.items()
  },
  tiers=settings.stale_tiers('int4: recomputed'),
  panels=_panels,
  judge=lambda points: [
    contrast(points, f'{claim}, {s}.', column, f'{s}: {a}', f'{s}: {b}', effect)
    for s in _SAMPLERS
    for claim, column, a, b, effect in (
      (
        'More reward by the rollout anchor',
        'reward',
        *_ANCHORS,
        settings.REWARD,
      ),
      ('Less mismatch', 'mean_abs', *reversed(_ANCHORS), settings.MISMATCH),
    )
  ],
  pod=papers.RUNS['anchor'],
)

if __name__ == '__main__':
  command.run(FIGURE, __doc__)
