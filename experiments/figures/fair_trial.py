"""Verdicts compare every method with DPPO-Binary-TV: mean reward over a run.

Paired by task and seed; once at the papers' thresholds and once against
DPPO-Binary-TV at the threshold at which it removes as much weight, read between
an eighth and twice its own. p is of an exact sign-flip test of the mean,
corrected by Holm over the methods of a mismatch (each side has half of the
level), instead of the sign test below: 'reproduced' is more by .05, 'opposite'
less by .05, 'not reproduced' alike within .05.
"""

from typing import Any

from dppo_jax.configs import stale_digits
from dppo_jax.experiments.figures import papers, settings
from dppo_jax.experiments.figures.harness import command, fair
from dppo_jax.experiments.figures.harness.figure import Figure


def _config() -> Any:
  """Four updates a batch: the sampler's mismatch dominates staleness."""
  config: Any = stale_digits.get_config()
  config.num_steps = 40
  config.learner.num_minibatches = 4
  config.optimizer.learning_rate = 3e-4
  # No panel shows them, and two thousand runs would pay for them.
  config.ledger.every_n_steps = 0
  config.checkpoints.every_n_steps = 40
  config.sampling.integrity_every_n_steps = 0
  config.evaluation.num_prompts = 8
  config.evaluation.final_num_prompts = 8
  return config


FIGURE = Figure(
  name='fair_trial',
  title='Thirteen methods under six mismatches',
  paper='no paper',
  claim='each successor claims to earn more than DPPO; replications conflict.',
  variants=fair.variants(),
  tiers=settings.tiers(_config, 'DPPO-Binary-TV | noise | sort'),
  rows=fair.rows,
  panels=fair.panels_of,
  judge=fair.judge,
  pod=papers.RUNS['fair_trial'],
)

if __name__ == '__main__':
  command.run(FIGURE, __doc__)
