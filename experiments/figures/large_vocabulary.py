"""Verdicts compare the masked tokens and the mean reward over a run.

Rare is mu < .1; the share is over all steps of a run. The least difference of
rewards that counts is .05.
"""

from dppo_jax.analysis import panels
from dppo_jax.configs import large_vocabulary
from dppo_jax.experiments.figures import papers, settings
from dppo_jax.experiments.figures.harness import command, judging
from dppo_jax.experiments.figures.harness.contrasts import contrast
from dppo_jax.experiments.figures.harness.figure import Figure

_PG, _GRPO, _TV, _TOP = _NAMES = (
  'PG-IS',
  'GRPO-ClipHigher',
  'DPPO-Binary-TV',
  'DPPO-TopK-TV',
)
_CONTRASTS = (
  ('Binary TV earns more than the ratio clip.', 'reward', _TV, _GRPO),
  ('Top-K TV earns more than the ratio clip.', 'reward', _TOP, _GRPO),
  ('Top-K TV, which sees the tail, earns more.', 'reward', _TOP, _TV),
  ('Binary TV earns more than no mask.', 'reward', _TV, _PG),
)
FIGURE = Figure(
  name='large_vocabulary',
  title='A vocabulary of 4,096 words',
  paper='DPPO sections 1 and 4',
  claim='where the vocabulary has a long tail, the ratio clip masks rare tokens'
  ' for nothing, and a bound on the divergence does better.',
  variants={name: settings.METHODS[name] for name in _NAMES},
  tiers=settings.tiers(large_vocabulary.get_config, _TV),
  panels=lambda points: [
    panels.over_steps(points, 'reward', 'Reward', 'mean reward'),
    panels.over_steps(points, 'masked', 'Masked', 'share of tokens'),
    panels.over_steps(points, 'masked_rare', 'Masked, rare', 'share of tokens'),
    panels.bars(points, 'reward', 'Reward over the run', 'mean reward'),
  ],
  judge=lambda points: [
    judging.rare_share(points, _GRPO, _TV),
    *(contrast(points, *row, settings.REWARD) for row in _CONTRASTS),
  ],
  pod=papers.RUNS['large_vocabulary'],
)

if __name__ == '__main__':
  command.run(FIGURE, __doc__)
