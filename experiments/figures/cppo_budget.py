"""Verdicts compare positions of a run, and its first and last third.

Deviation is |pi - mu| of sampled tokens at their update, by 16 positions; the
budget's share is of the masked tokens. CPPO-P90 has the budget of eq. 22.
"""

from collections.abc import Sequence

from dppo_jax.analysis import panels
from dppo_jax.analysis.panels import Panel
from dppo_jax.analysis.table import Points
from dppo_jax.configs import long_recital
from dppo_jax.experiments.figures import papers, settings
from dppo_jax.experiments.figures.harness import command, positions
from dppo_jax.experiments.figures.harness.figure import Figure

_DPPO, _, _P90 = _NAMES = ('DPPO', 'CPPO', 'CPPO-P90')
_ALONG = (
  ('tv', 'Mean of |π − μ|', 'probability'),
  ('tv_top', 'Mean of its largest tenth', 'probability'),
  ('bound', 'Bound of a token, δ / w', 'probability'),
  ('masked_here', 'Masked', 'share of tokens'),
)
_STEPS = (
  ('budget', 'Effective budget', 'δ_b'),
  ('budget_share', 'Masked by the budget', 'share of masks'),
)
_EARLY = (
  ('Deviation is largest early in training.', _P90, 'mean_abs', 0.001),
  ('The budget masks most then.', _P90, 'budget_share', 0.1),
)


def _panels(points: Points) -> Sequence[Panel]:
  steps, along = points.where(kind='step'), points.where(kind='position')
  return [
    *(panels.over_steps(along, *row, over='position') for row in _ALONG),
    *(panels.over_steps(steps, *row) for row in _STEPS),
  ]


FIGURE = Figure(
  name='cppo_budget',
  title='Deviation by position, and the prefix budget',
  paper='CPPO Fig. 2, 7',
  claim='policy deviation varies with position; it is large at first, and so is'
  ' the share of masks that the prefix budget makes.',
  variants={name: settings.CPPO_PARTS[name] for name in _NAMES},
  tiers=settings.tiers(long_recital.get_config, 'CPPO', _P90),
  rows=positions.rows,
  panels=_panels,
  judge=lambda points: [
    positions.varies(points.where(kind='position'), _DPPO, 'tv', 2.0),
    *(positions.early(points.where(kind='step'), *row) for row in _EARLY),
  ],
  pod=papers.RUNS['cppo_budget'],
)

if __name__ == '__main__':
  command.run(FIGURE, __doc__)
