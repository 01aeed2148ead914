"""Verdicts compare means over a run: reward, entropy, mu of masked tokens.

The baseline is GRPO-ClipHigher; alpha exempts tokens with mu < alpha from its
clip. Rare is mu < .1; the share of rare tokens among the masked ones is over
all steps of a run. Least effects: reward .05, entropy .01 nats, mu .05.
"""

from dppo_jax.analysis import panels, run_tables
from dppo_jax.experiments.figures import papers, settings
from dppo_jax.experiments.figures.harness import command, judging
from dppo_jax.experiments.figures.harness.contrasts import contrast
from dppo_jax.experiments.figures.harness.figure import Figure

_GRPO = settings.METHODS['GRPO-ClipHigher']
_LOW, _HIGH = 'trust_region.alpha_low', 'trust_region.alpha_high'
_VARIANTS = {
  'GRPO-ClipHigher': _GRPO,
  'Relax-both 0.1': {**_GRPO, _LOW: 0.1, _HIGH: 0.1},
  'Relax-both 0.3': {**_GRPO, _LOW: 0.3, _HIGH: 0.3},
  'Relax-both 0.5': {**_GRPO, _LOW: 0.5, _HIGH: 0.5},
  'Relax-high 0.1': {**_GRPO, _HIGH: 0.1},
  'Relax-low 0.1': {**_GRPO, _LOW: 0.1},
  'DPPO-Binary-TV': settings.METHODS['DPPO-Binary-TV'],
}
_BASE, _BOTH = 'GRPO-ClipHigher', 'Relax-both 0.1'
_REWARD, _LEAST = ('reward', _BOTH), (settings.REWARD,)
_CONTRASTS = (
  ('Exempting rare tokens improves the reward.', *_REWARD, _BASE, *_LEAST),
  ('So it does more than Relax-high.', *_REWARD, 'Relax-high 0.1', *_LEAST),
  ('Relax-low loses entropy.', 'entropy', _BOTH, 'Relax-low 0.1', 0.01),
  ('Larger alpha, likelier masks.', 'masked_mu', 'Relax-both 0.5', _BASE, 0.05),
)
FIGURE = Figure(
  name='relaxation',
  title='Relaxing the clip for rare tokens',
  paper='DPPO Fig. 6, 7',
  claim='the clip hits mostly rare tokens of high entropy; exempting those with'
  ' mu < .1 learns faster, and exempting both signs is best.',
  variants=_VARIANTS,
  tiers=settings.stale_tiers(_BASE, 'DPPO-Binary-TV'),
  rows=run_tables.with_ledger(run_tables.COLUMNS, run_tables.MASKED),
  panels=lambda points: [
    panels.over_steps(points, 'reward', 'Reward', 'mean reward'),
    panels.over_steps(points, 'entropy', 'Entropy', 'nats per token'),
    panels.bars(points, 'masked_mu', 'μ of masked tokens', 'probability'),
    panels.bars(points, 'masked_entropy', 'Their entropy', 'nats'),
  ],
  judge=lambda points: [
    *(contrast(points, *row) for row in _CONTRASTS),
    judging.rare_share(points, _BASE, 'DPPO-Binary-TV'),
  ],
  pod=papers.RUNS['relaxation'],
)

if __name__ == '__main__':
  command.run(FIGURE, __doc__)
