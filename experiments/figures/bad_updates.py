"""Verdicts compare rewards over a run (.15), and accuracy after it (.3).

Bad is A < 0, mu - pi >= .5. One-sided masks: Binary TV. The sampler is exact.
"""

from dppo_jax.analysis import panels
from dppo_jax.analysis.table import Points
from dppo_jax.experiments.figures import papers, settings
from dppo_jax.experiments.figures.harness import command
from dppo_jax.experiments.figures.harness.contrasts import contrast
from dppo_jax.experiments.figures.harness.figure import Figure
from dppo_jax.experiments.figures.harness.verdicts import Findings

_TV = settings.METHODS['DPPO-Binary-TV']
_MASK = settings.ruled('mask_bad_updates', delta_low=0.5)
_VARIANTS = {
  'PG-IS': settings.METHODS['PG-IS'],
  'Mask-0.5': _MASK,
  'Mask-0.8': {**_MASK, 'trust_region.delta_low': 0.8},
  'Mask-0.5-Recompute': {**_MASK, 'trust_region.anchor': 'recomputed'},
  'both sides': _TV,
  'negatives only': {**_TV, 'trust_region.advantage_sign': 'negative'},
  'positives only': {**_TV, 'trust_region.advantage_sign': 'positive'},
}
_ENDS, _TIGHT = ('negatives only', 'positives only'), 'Mask-0.5'


def _judge(points: Points) -> Findings:
  most, last = settings.COLLAPSE, {'step': points.values('step')[-1]}
  one = 'Masking the bad updates alone stabilizes PG-IS.'
  three = 'Nor does an anchor on recomputed probabilities.'
  four = 'Masks of negatives stabilize, of positives do not:'
  return (
    contrast(points, one, 'reward', _TIGHT, 'PG-IS', most),
    contrast(points, 'Delta .8 does not.', 'reward', _TIGHT, 'Mask-0.8', most),
    contrast(points, three, 'reward', _TIGHT, _TIGHT + '-Recompute', most),
    contrast(points, four + ' reward.', 'reward', *_ENDS, most),
    contrast(points, four + ' final.', 'held_out', *_ENDS, 0.3, where=last),
  )


FIGURE = Figure(
  name='bad_updates',
  title='Which updates destabilize',
  paper='DPPO Fig. 5',
  claim='at most 0.5 % of updates push a token of a negative sample down by'
  ' half or more, and masking those alone stabilizes PG-IS.',
  variants=_VARIANTS,
  tiers=settings.stale_tiers('PG-IS', 'both sides'),
  panels=lambda points: [
    panels.over_steps(points, 'reward', 'Reward', 'mean reward'),
    panels.over_steps(points, 'bad_updates', 'Bad updates', 'share of tokens'),
    panels.bars(points, 'reward', 'Reward over the run', 'mean reward'),
  ],
  judge=_judge,
  pod=papers.RUNS['bad_updates'],
)

if __name__ == '__main__':
  command.run(FIGURE, __doc__)
