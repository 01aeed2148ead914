"""Verdicts compare the spread of the mean reward over thresholds.

'clip 0.28' is .2 below and .28 above, the others are symmetric. The spread is
the largest minus the least of a family; .05 is an effect. At equal masked
share, families are compared in the middle of their common range, by linear
interpolation between thresholds, so that none wins by masking less.
"""

from dppo_jax.analysis import panels
from dppo_jax.analysis.table import Points
from dppo_jax.experiments.figures import papers, settings
from dppo_jax.experiments.figures.harness import command, judging
from dppo_jax.experiments.figures.harness.figure import Figure
from dppo_jax.experiments.figures.harness.verdicts import Findings

_VARIANTS = {
  **{f'TV {d}': settings.bound('binary_tv', d) for d in (0.05, 0.1, 0.2)},
  **{f'KL {d}': settings.bound('binary_kl', d) for d in (0.05, 0.1, 0.15)},
  **{f'clip {c}': settings.clip(min(c, 0.2), c) for c in (0.1, 0.2, 0.28)},
}
_FAMILIES = {
  family: [name for name in _VARIANTS if name.startswith(short)]
  for family, short in (
    ('DPPO-Binary-TV', 'TV '),
    ('DPPO-Binary-KL', 'KL '),
    ('GRPO', 'clip '),
  )
}


def _judge(points: Points) -> Findings:
  return [
    finding(points, 'reward', _FAMILIES, name, 'GRPO', settings.REWARD)
    for name in ('DPPO-Binary-TV', 'DPPO-Binary-KL')
    for finding in (judging.less_sensitive, judging.at_equal_mask)
  ]


FIGURE = Figure(
  name='sensitivity',
  title='Sensitivity to thresholds',
  paper='DPPO Fig. 19',
  claim='DPPO is robust over a range of thresholds, GRPO less so.',
  variants=_VARIANTS,
  tiers=settings.stale_tiers('TV 0.2', 'clip 0.28'),
  panels=lambda points: [
    panels.bars(points, 'reward', 'Reward over the run', 'mean reward'),
    panels.against(points, 'masked', 'reward', 'By masked share', _FAMILIES),
  ],
  judge=_judge,
  pod=papers.RUNS['sensitivity'],
)

if __name__ == '__main__':
  command.run(FIGURE, __doc__)
