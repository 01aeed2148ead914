"""Rewards of a rollout: verifiers' sum, lengths, a model's score; metrics."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dppo_jax.base import Rollout
from dppo_jax.rewards.shaping import ShapingConfig, shape
from dppo_jax.rewards.terms import Term, combine
from dppo_jax.rewards.verdicts import (
  Verdict,
  failure_counts,
  is_right,
  reason_shares,
)
from dppo_jax.runtime.hosts import host_rows
from dppo_jax.runtime.rollouts.reward_model import RewardModel
from dppo_jax.runtime.rollouts.verify import CompletionVerifier


class Rewarded(NamedTuple):
  """Rewards of a rollout, and what they were made of.

  Attributes:
    texts: B completions.
    verdicts: B rewards with everything added, and reasons.
    metrics: `rewards/…`.
  """

  texts: list[str]
  verdicts: list[Verdict]
  metrics: dict[str, float]


def reward(
  verifier: CompletionVerifier,
  rollout: Rollout,
  group_size: int,
  shaping: ShapingConfig,
  model: RewardModel | None = None,
  own: np.ndarray | None = None,
  num_texts: int = 0,
) -> Rewarded:
  """Rewards of a rollout: the verdicts, shaping and the model's scores added.

  Args:
    verifier: of its completions.
    rollout: on the host, B rows.
    group_size: G.
    shaping: what lengths add.
    model: reads the prompts as their records have them, and the completions.
    own: as of `CompletionVerifier.verify`.
    num_texts: as there.
  """
  texts, found = verifier.verify(rollout, own, num_texts)
  terms = verifier.pool.terms
  verdicts = combine(terms, found)
  lengths = np.asarray(rollout.completion_mask).sum(axis=1)
  lengths = host_rows.total(lengths)
  # Of the first term alone: a reward for the format makes no answer right.
  right = [is_right(verdict) for verdict in found[0]]
  added = shape(lengths, right, group_size, shaping)
  metrics = verdict_metrics(terms, found)
  if any(term.name != 'none' for term in shaping.terms):
    metrics['rewards/shaping'] = float(np.mean(added))
  if model is not None:
    examples = verifier.stream.examples(rollout.example_id)
    prompts = [str(example['prompt']) for example in examples]
    scored = model.score(prompts, texts)
    added = added + model.weight * scored.scores
    metrics |= scored.metrics
  shaped = [
    Verdict(verdict.reward + float(more), verdict.reason)
    for verdict, more in zip(verdicts, added, strict=True)
  ]
  return Rewarded(texts, shaped, metrics)


def verdict_metrics(
  terms: Sequence[Term], found: Sequence[Sequence[Verdict]]
) -> dict[str, float]:
  """Shares of completions by reason, and by how their verifier failed.

  Args:
    terms: T terms of the reward.
    found: for each of them B verdicts.

  Returns:
    `rewards/reason_…`, of the first term, summing to 1; `rewards/errors`,
    crashes among them, and `rewards/timeouts`, of any term;
    `rewards/term_…`, means before weighting, where there are several.
  """
  size = len(found[0])
  worst = [_worst(of_one) for of_one in zip(*found, strict=True)]
  counts = failure_counts(worst)
  metrics = {
    'rewards/errors': (counts['errors'] + counts['crashes']) / size,
    'rewards/timeouts': counts['timeouts'] / size,
  }
  for reason, share in reason_shares(found[0]).items():
    metrics[f'rewards/reason_{reason}'] = share
  if len(terms) > 1:
    for term, verdicts in zip(terms, found, strict=True):
      name = term.name.rpartition(':')[2]
      mean = float(np.mean([verdict.reward for verdict in verdicts]))
      metrics[f'rewards/term_{name}'] = mean
  return metrics


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
  """The first that failed; else the first."""
  failed = [v for v in verdicts if any(failure_counts([v]).values())]
  return failed[0] if failed else verdicts[0]
