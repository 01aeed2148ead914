"""The verdict compares which tokens two rules mask, over all steps of a run.

Rare is mu < .1. The plots show the recorded steps: the masked share of each
token's occurrences, with A < 0 and with A > 0, and by range of mu.
"""

from dppo_jax.analysis import panels, run_tables
from dppo_jax.experiments.figures import papers, settings
from dppo_jax.experiments.figures.harness import command, judging
from dppo_jax.experiments.figures.harness.figure import Figure

_CLIP, _BOUND = 'GRPO-ClipHigher', 'DPPO-Binary-TV'
FIGURE = Figure(
  name='clipped_tokens',
  title='Which tokens are masked',
  paper='DPPO App. D',
  claim='the ratio clip masks rare tokens that the task depends on: numbers and'
  ' words of reasoning.',
  variants={name: settings.METHODS[name] for name in (_CLIP, _BOUND)},
  tiers=settings.stale_tiers(_CLIP, _BOUND),
  rows=run_tables.masked_rows,
  panels=lambda points: [
    panels.grouped(
      points.where(kind=kind),
      f'masked_{sign}',
      title,
      'share masked',
      ordered=kind == 'mu',
    )
    for kind, name in (('mu', 'range of μ'), ('token', 'token'))
    for sign, title in (
      ('negative', f'A < 0, by {name}'),
      ('positive', f'A > 0, by {name}'),
    )
  ],
  judge=lambda points: [
    judging.rare_share(points.where(kind='run'), _CLIP, _BOUND)
  ],
  pod=papers.RUNS['clipped_tokens'],
)

if __name__ == '__main__':
  command.run(FIGURE, __doc__)
