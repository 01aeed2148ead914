"""Verdicts compare means over a run: reward and |pi - mu| of two anchors.

Both are DPPO-Binary-KL. 'fp8' and 'int4' are samplers with weights of that
precision, in the stale setting; 'int4, 4 updates' has a quarter of the updates
per batch at 3e-4, so that mismatch dominates staleness. Effects: .05 and .005.
"""

from dppo_jax.analysis import panels
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
  panels=lambda points: [
    panels.over_steps(points, 'reward', 'Reward', 'mean, by that sampler'),
    panels.over_steps(points, 'mean_abs', 'Mean of |π − μ|', 'probability'),
    panels.bars(points, 'masked', 'Masked', 'share of tokens'),
  ],
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
