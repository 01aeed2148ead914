"""Verdicts compare p(think) of batch 3, rewards, and numbers of refreshes.

Batch 3 is sampled after two refreshes of mu; p(think) is mu's mean of a batch.
In the tabular problem n counts starts or optimizers, and nothing is random. The
sampler is exact, so MiniRL equals GRPO-ClipHigher, whose curve hides its own.
"""

from dppo_jax.analysis import panels, run_tables
from dppo_jax.analysis.table import Points
from dppo_jax.configs import rare_token
from dppo_jax.data.tasks import TASKS, THINK
from dppo_jax.experiments.figures import papers, settings
from dppo_jax.experiments.figures.harness import command, growth, tabular
from dppo_jax.experiments.figures.harness.contrasts import contrast
from dppo_jax.experiments.figures.harness.figure import Figure
from dppo_jax.experiments.figures.harness.verdicts import Findings

_THINK = run_tables.probability_of_first(
  TASKS['running_sum'].vocabulary.index(THINK)
)
_READ = run_tables.with_ledger(run_tables.COLUMNS, {'p_think': _THINK})
_TV, _GRPO = _PAIR = ('DPPO-Binary-TV', 'GRPO-ClipHigher')
_METHODS = ('PG-IS', 'MiniRL', _GRPO, _TV, 'DPPO-Binary-KL')


def _judge(points: Points) -> Findings:
  runs = points.where(problem='transformer')
  one, two = 'Binary TV raises a rare token faster.', 'It is likely sooner.'
  three, least = 'So it earns more over a run,', settings.REWARD
  last = {'step': runs.values('step')[-1]}
  return (
    growth.times(runs, one, 'p_think', *_PAIR, 2.0, where={'step': '3'}),
    growth.sooner(runs, two, 'p_think', *_PAIR, 0.5),
    contrast(runs, three, 'reward', *_PAIR, least),
    contrast(runs, 'and ends higher.', 'held_out', *_PAIR, least, where=last),
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
  tiers=settings.tiers(rare_token.get_config, _TV),
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
