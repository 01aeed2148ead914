"""Verdicts compare how far the mean reward over a run spreads over thresholds.

'clip 0.28' is .2 below and .28 above, the others are symmetric. Spread is the
largest minus the least of a family; .05 is an effect. At equal masked share
families are compared in the middle of the range that both have, by straight
lines between thresholds, so that none wins by masking less.
"""

from dppo_jax.runtime.figures import command, judging, panels
from dppo_jax.runtime.figures.figure import Figure
from dppo_jax.runtime.figures.points import Points
from dppo_jax.runtime.figures.verdicts import Findings
from experiments.figures import settings

_BOUNDS = (
  ('DPPO-Binary-TV', 'TV', 'dppo_binary_tv', 'delta', (0.05, 0.1, 0.2)),
  ('DPPO-Binary-KL', 'KL', 'dppo_binary_kl', 'delta', (0.05, 0.1, 0.15)),
  ('GRPO', 'clip', 'grpo_clip_higher', 'clip', (0.1, 0.2, 0.28)),
)
_VARIANTS = {
  f'{short} {high}': settings.thresholds(preset, what, min(high, 0.2), high)
  for _, short, preset, what, bounds in _BOUNDS
  for high in bounds
}
_FAMILIES = {
  family: [f'{short} {high}' for high in bounds]
  for family, short, _, _, bounds in _BOUNDS
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
  pod=settings.pod('dppo_binary_tv', 'dppo_binary_kl', 'grpo'),
)

if __name__ == '__main__':
  command.run(FIGURE, __doc__)
