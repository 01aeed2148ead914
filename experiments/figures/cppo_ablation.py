"""Verdicts compare the mean reward over a run; .05 is the least effect.

All measure Binary TV with delta .15. 'weights' and 'budget' are CPPO with one
mechanism only; 'shuffled' permutes the weights over positions; 'soft' weights
tokens by a gate. The variants of Fig. 6 are in the gpu tier only.
"""

from dppo_jax.analysis import panels
from dppo_jax.analysis.table import Points
from dppo_jax.configs import long_recital
from dppo_jax.experiments.figures import papers, settings
from dppo_jax.experiments.figures.harness import command
from dppo_jax.experiments.figures.harness.contrasts import alike, contrast
from dppo_jax.experiments.figures.harness.figure import Figure
from dppo_jax.experiments.figures.harness.verdicts import Findings

_ALONE = ('weights', 'budget')
_IN_CPU = ('DPPO', 'CPPO', *_ALONE, 'shuffled', 'soft')
_CONTRASTS = (
  ('CPPO earns more than DPPO,', 'CPPO', 'DPPO'),
  ('so do its weights alone,', 'weights', 'DPPO'),
  ('and its budget alone;', 'budget', 'DPPO'),
  ('both earn more than either.', 'CPPO', {'most': _ALONE}),
  ('The order of the weights matters.', 'CPPO', 'shuffled'),
)
_ALIKE = ('Soft and hard earn alike.', 'reward', 'soft', 'CPPO')


def _judge(points: Points) -> Findings:
  least = settings.REWARD
  return (
    *(contrast(points, c, 'reward', a, b, least) for c, a, b in _CONTRASTS),
    alike(points, *_ALIKE, least),
  )


FIGURE = Figure(
  name='cppo_ablation',
  title='The mechanisms of CPPO',
  paper='CPPO Fig. 4, 5, 6',
  claim='position weights and prefix budget each improve on DPPO, both together'
  ' most; the order of the weights matters, a soft gate does as well.',
  variants=settings.CPPO_PARTS,
  tiers=settings.tiers(long_recital.get_config, 'CPPO', cpu=_IN_CPU),
  panels=lambda points: [
    panels.over_steps(points, 'reward', 'Reward', 'mean reward'),
    panels.over_steps(points, 'masked', 'Masked', 'share of tokens'),
    panels.bars(points, 'reward', 'Reward over the run', 'mean reward'),
    panels.bars(points, 'mean_abs', 'Mean of |π − μ|', 'probability'),
  ],
  judge=_judge,
  pod=papers.RUNS['cppo_ablation'],
)

if __name__ == '__main__':
  command.run(FIGURE, __doc__)
