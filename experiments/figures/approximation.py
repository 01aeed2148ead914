"""Verdicts compare the mean reward over a run; alike is less than .05 apart.

TopK-TV k has the k most likely tokens and the sampled one as atoms; binary has
the sampled one only. The top-K mass is that of mu, over recorded steps; 'nearly
all' is .95 and above.
"""

from dppo_jax.analysis import panels, run_tables
from dppo_jax.experiments.figures import papers, settings
from dppo_jax.experiments.figures.harness import command, judging
from dppo_jax.experiments.figures.harness.contrasts import alike
from dppo_jax.experiments.figures.harness.figure import Figure

_TOP = {1: 'TopK-TV 1', 2: 'TopK-TV 2', 10: 'TopK-TV 10'}
_TV = settings.METHODS['DPPO-TopK-TV']
_VARIANTS = {
  **{name: settings.METHODS[name] for name in settings.DPPO},
  **{name: {**_TV, 'sampling.top_k': k} for k, name in _TOP.items()},
  'Exact-TV': settings.bound('exact_tv', 0.2),
  'Exact-KL': settings.bound('exact_kl', 0.05),
}
_MASS = {f'mass_{k}': run_tables.top_k_mass(k) for k in (1, 2, 5, 10)}
_PAIRS = (
  ('DPPO-Binary-TV', 'DPPO-TopK-TV'),
  ('DPPO-Binary-KL', 'DPPO-TopK-KL'),
  ('DPPO-Binary-TV', 'Exact-TV'),
  ('DPPO-Binary-KL', 'Exact-KL'),
)
FIGURE = Figure(
  name='approximation',
  title='Binary, Top-K and exact divergences',
  paper='DPPO Fig. 11, 12, 18',
  claim='Binary and Top-K (K = 20) perform alike, as the most likely tokens'
  ' hold nearly all mass.',
  variants=_VARIANTS,
  tiers=settings.stale_tiers('DPPO-Binary-TV', 'Exact-TV'),
  rows=run_tables.with_ledger(run_tables.COLUMNS, _MASS),
  panels=lambda points: [
    panels.bars(points, 'reward', 'Reward over the run', 'mean reward'),
    panels.bars(points, 'masked', 'Masked', 'share of tokens'),
    panels.columns_over_steps(
      points.where(variant='TopK-TV 10'), tuple(_MASS), 'Mass', 'Top-K of μ'
    ),
  ],
  judge=lambda points: [
    *(
      alike(points, f'{a} and {b} earn alike.', 'reward', a, b, settings.REWARD)
      for a, b in _PAIRS
    ),
    judging.level(points, 'The top 5 hold nearly all mass.', 'mass_5', 0.95),
  ],
  pod=papers.RUNS['approximation'],
)

if __name__ == '__main__':
  command.run(FIGURE, __doc__)
