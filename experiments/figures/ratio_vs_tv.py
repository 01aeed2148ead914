"""Verdicts compare a policy with itself, sampled in five precisions.

At learning rate 0 mu and pi share parameters; every ninth token is plotted.
int4's means over mu < .1 and mu >= .5 are compared: |log r| (.05), TV (.005).
"""

from dppo_jax.analysis import panels, run_tables
from dppo_jax.analysis.panels import Bound, Panel
from dppo_jax.analysis.table import Points
from dppo_jax.experiments.figures import papers, settings
from dppo_jax.experiments.figures.harness import command, judging
from dppo_jax.experiments.figures.harness.figure import Figure
from dppo_jax.runtime.reporting import palette

_LADDER = ('float32', 'bfloat16', 'int8', 'fp8', 'int4')
_STILL = {'optimizer.learning_rate': 0.0, 'ledger.every_n_steps': 1}
_STILL['num_steps'] = 1
_COLUMNS = (
  ('The ratio is volatile for rare tokens.', 'log_rare', 'log_common', 0.05),
  ('TV is not larger for them.', 'tv_common', 'tv_rare', 0.005),
)


def _panels(points: Points) -> list[Panel]:
  runs, tokens = points.where(kind='run'), points.where(kind='token')
  far = tokens.where(variant='int4')
  label, unit = 'Mean of |π − μ|', 'probability'
  clip, tv = (palette.RULES[n].color for n in ('GRPO', 'DPPO-Binary-TV'))
  clips = [Bound(f'clip at {v:g}', v, clip) for v in (0.8, 1.28)]
  log = {'y_log': True, 'bounds': clips}
  bound = [Bound('δ = 0.2', 0.2, tv)]
  return [
    panels.dots(far, 'mu', 'ratio', 'Ratio π / μ, int4', **log),
    panels.dots(far, 'mu', 'tv', 'TV |π − μ|, int4', bounds=bound),
    panels.bars(runs, 'mean_abs', label, unit, y_log=True),
  ]


FIGURE = Figure(
  name='ratio_vs_tv',
  title='Ratio and TV of equal parameters',
  paper='DPPO Fig. 1, 2',
  claim='between a sampler and a trainer of equal parameters the ratio is'
  ' volatile where μ is small, and TV is not.',
  variants={
    name: {**settings.METHODS['PG-IS'], **_STILL, 'sampling.precision': name}
    for name in _LADDER
  },
  tiers=settings.stale_tiers('float32', 'int4'),
  rows=run_tables.token_rows,
  panels=_panels,
  judge=lambda points: [
    judging.ladder(points, 'Coarser is further.', 'mean_abs', _LADDER, 1e-5),
    *(judging.columns_differ(points, 'int4', *row) for row in _COLUMNS),
  ],
  pod=papers.RUNS['ratio_vs_tv'],
)

if __name__ == '__main__':
  command.run(FIGURE, __doc__)
