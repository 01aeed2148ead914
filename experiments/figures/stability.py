"""Verdicts compare the mean reward over all steps of a run, per seed.

PG-IS and PG-TIS are unmasked, all others masked; the misspecified anchor is
MiniRL's. The mismatch is the mean of |pi - mu| over tokens, updates and steps.
"""

from dppo_jax.analysis import panels
from dppo_jax.analysis.table import Points
from dppo_jax.experiments.figures import papers, settings
from dppo_jax.experiments.figures.harness import command
from dppo_jax.experiments.figures.harness.contrasts import contrast
from dppo_jax.experiments.figures.harness.figure import Figure
from dppo_jax.experiments.figures.harness.verdicts import Findings

_UNMASKED = ('PG-IS', 'PG-TIS')
_MASKED = tuple(name for name in settings.METHODS if name not in _UNMASKED)


def _judge(points: Points) -> Findings:
  one = 'Without a trust region training collapses, with one it does not.'
  two = 'MiniRL, anchored on recomputed probabilities, falls behind DPPO.'
  three = 'Truncated importance sampling makes PG-IS collapse sooner.'
  four = 'Truncated importance sampling makes MiniRL collapse sooner.'
  five = 'DPPO keeps the mismatch lower than the methods without a mask.'
  collapse, least = settings.COLLAPSE, settings.REWARD
  dppo, unmasked = {'mean': settings.DPPO}, {'least': _UNMASKED}
  lost, kept, levels = {'most': _UNMASKED}, {'least': _MASKED}, (0.40, 0.25)
  return (
    contrast(points, one, 'reward', kept, lost, collapse, levels=levels),
    contrast(points, two, 'reward', dppo, 'MiniRL', least),
    contrast(points, three, 'reward', 'PG-IS', 'PG-TIS', least),
    contrast(points, four, 'reward', 'MiniRL', 'MiniRL-TIS', least),
    contrast(points, five, 'mean_abs', unmasked, dppo, settings.MISMATCH),
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
