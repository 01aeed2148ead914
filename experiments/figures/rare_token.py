"""Verdicts compare p(think) of batch 3, rewards, and counts of refreshes.

Batch 3 is sampled after two refreshes of mu; p(think) is mu's, averaged over
the prompts of a batch. In the tabular problem n counts starts or optimizers.
The sampler is exact, so MiniRL is GRPO-ClipHigher itself, and lies below it.
"""

from collections.abc import Sequence

from configs import rare_token
from dppo_jax.data.tasks import TASKS, THINK
from dppo_jax.runtime.figures import collect, command, growth, panels, tabular
from dppo_jax.runtime.figures.figure import Figure
from dppo_jax.runtime.figures.points import Points
from dppo_jax.runtime.figures.verdicts import Finding, contrast
from experiments.figures import papers, settings

_ID = TASKS['running_sum'].vocabulary.index(THINK)
_READ = collect.with_ledger(
  collect.COLUMNS, {'p_think': collect.probability_of_first(_ID)}
)
_TV, _GRPO = _PAIR = ('DPPO-Binary-TV', 'GRPO-ClipHigher')
_METHODS = ('PG-IS', 'MiniRL', _GRPO, _TV, 'DPPO-Binary-KL')


def _judge(points: Points) -> Sequence[Finding]:
  runs = points.where(problem='transformer')
  one, two = 'Binary TV raises a rare token faster.', 'It is likely sooner.'
  three, four = 'So it earns more over a run,', 'and ends higher.'
  third, last = {'step': '3'}, {'step': runs.values('step')[-1]}
  return (
    growth.times(runs, one, 'p_think', *_PAIR, 2.0, where=third),
    growth.sooner(runs, two, 'p_think', *_PAIR, 0.5),
    contrast(runs, three, 'reward', *_PAIR, 0.02),
    contrast(runs, four, 'held_out', *_PAIR, 0.05, where=last),
    growth.counts(points.where(problem='ascent'), _GRPO, _TV, 2.0),
    growth.counts(points.where(problem='gradient'), _GRPO, _TV, 2.0),
  )


FIGURE = Figure(
  name='rare_token',
  title='A rare token that matters',
  paper='DPPO section 4.2',
  claim='the ratio clip lets a rare token grow by a factor at a time, a bound'
  ' on TV by an amount, so good rare tokens are learned faster.',
  variants={name: settings.METHODS[name] for name in _METHODS},
  tiers=settings.tiers(rare_token.get_config, _GRPO, _TV),
  rows=lambda outcomes: tabular.beside(_READ(outcomes)),
  panels=lambda points: [
    panels.over_steps(points, 'p_think', 'p(think) of mu', 'probability'),
    panels.over_steps(points, 'reward', 'Reward', 'mean reward'),
    *tabular.counted(points),
  ],
  judge=_judge,
  pod=papers.RUNS['rare_token'],
)

if __name__ == '__main__':
  command.run(FIGURE, __doc__)
