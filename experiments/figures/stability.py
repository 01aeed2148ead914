"""Verdicts compare the mean reward over all steps of a run, seed by seed.

Unmasked are PG-IS and PG-TIS, masked all others; the misspecified anchor is
MiniRL's. The mismatch is the mean of |pi - mu| over tokens, updates and steps.
"""

from collections.abc import Sequence

from dppo_jax.runtime.figures import command, panels
from dppo_jax.runtime.figures.figure import Figure
from dppo_jax.runtime.figures.points import Points
from dppo_jax.runtime.figures.verdicts import Finding, contrast
from experiments.figures import papers, settings

_UNMASKED = ('PG-IS', 'PG-TIS')
_MASKED = tuple(name for name in settings.METHODS if name not in _UNMASKED)


def _judge(points: Points) -> Sequence[Finding]:
  one = 'Without a trust region training collapses, with one it does not.'
  two = 'MiniRL, anchored on recomputed probabilities, falls behind DPPO.'
  three = 'Truncated importance sampling makes PG-IS collapse sooner.'
  four = 'Truncated importance sampling makes MiniRL collapse sooner.'
  five = 'DPPO keeps the mismatch lower than the methods without a mask.'
  dppo, lost = {'mean': settings.DPPO}, {'most': _UNMASKED}
  kept, levels = {'least': _MASKED}, (0.40, 0.25)
  return (
    contrast(points, one, 'reward', kept, lost, 0.15, levels=levels),
    contrast(points, two, 'reward', dppo, 'MiniRL', 0.10),
    contrast(points, three, 'reward', 'PG-IS', 'PG-TIS', 0.05),
    contrast(points, four, 'reward', 'MiniRL', 'MiniRL-TIS', 0.05),
    contrast(points, five, 'mean_abs', {'least': _UNMASKED}, dppo, 0.005),
  )


FIGURE = Figure(
  name='stability',
  title='Stability under stale data',
  paper='DPPO Fig. 3',
  claim='without a trust region (PG-IS, PG-TIS), or with a misspecified one'
  ' (MiniRL), |π − μ| grows and the reward collapses; DPPO stays stable.',
  variants=settings.METHODS,
  tiers=settings.stale_tiers('PG-IS', 'DPPO-Binary-TV'),
  panels=lambda points: [
    panels.over_steps(points, 'reward', 'Reward', 'mean reward'),
    panels.over_steps(points, 'mean_abs', 'Mean of |π − μ|', 'probability'),
    panels.over_steps(points, 'max', 'Max of π − μ', 'probability'),
    panels.over_steps(points, 'min', 'Min of π − μ', 'probability'),
    panels.bars(points, 'reward', 'Reward over the run', 'mean reward'),
  ],
  judge=_judge,
  pod=papers.RUNS['stability'],
)

if __name__ == '__main__':
  command.run(FIGURE, __doc__)
