"""Verdicts compare means over a run: reward and |pi - mu| of two anchors.

Both are DPPO-Binary-KL. 'fp8' and 'int4' are samplers with weights of that
precision, in the stale setting; 'int4, 4 updates' has a quarter of the updates
per batch at 3e-4, so that mismatch dominates staleness. Effects: .05 and .005.
"""

from dppo_jax.analysis import facets, panels
from dppo_jax.experiments.figures import papers, settings
from dppo_jax.experiments.figures.harness import command
from dppo_jax.experiments.figures.harness.contrasts import contrast
from dppo_jax.experiments.figures.harness.figure import Figure

_INT4 = {'sampling.precision': 'int4'}
_FRESH = {'learner.num_minibatches': 4, 'optimizer.learning_rate': 3e-4}
_SAMPLERS = {'fp8': {'sampling.precision': 'fp8'}, 'int4': _INT4}
_SAMPLERS['int4, 4 updates'] = _INT4 | _FRESH
_METHOD, _ANCHORS = 'DPPO-Binary-KL', ('rollout', 'recomputed')
_SHOWN = {
  s: {f'{s}: {a}': f'{_METHOD}, {a} anchor' for a in _ANCHORS}
  for s in _SAMPLERS
}
_CLAIMS = (  # The first anchor is expected to have more.
  ('More reward by the rollout anchor', 'reward', *_ANCHORS, settings.REWARD),
  ('Less mismatch', 'mean_abs', *reversed(_ANCHORS), settings.MISMATCH),
)
_AXES = ('Reward', 'mean, by that sampler'), ('Mean of |π − μ|', 'probability')
_BARS = ('masked', 'Masked', 'share of tokens')
FIGURE = Figure(
  name='anchor',
  title='Anchor of the trust region under a mismatched sampler',
  paper='DPPO Fig. 4',
  claim='anchored on recomputed probabilities, DPPO-KL loses control of |π − μ|'
  ' and its reward collapses; anchored on the rollout policy it is stable.',
  variants={
    f'{s}: {a}': settings.METHODS[_METHOD] | {'trust_region.anchor': a} | more
    for s, more in _SAMPLERS.items()
    for a in _ANCHORS
  },
  tiers=settings.stale_tiers('int4: recomputed'),
  panels=lambda points: (
    [
      part
      for (_, column, *_), labels in zip(_CLAIMS, _AXES, strict=True)
      for part in facets.split(
        panels.over_steps(points, column, *labels), _SHOWN
      )
    ]
    + [facets.relabel(panels.bars(points, *_BARS), _SHOWN)]
  ),
  judge=lambda points: [
    contrast(points, f'{claim}, {s}.', column, f'{s}: {a}', f'{s}: {b}', effect)
    for s in _SAMPLERS
    for claim, column, a, b, effect in _CLAIMS
  ],
  pod=papers.RUNS['anchor'],
)

if __name__ == '__main__':
  command.run(FIGURE, __doc__)
