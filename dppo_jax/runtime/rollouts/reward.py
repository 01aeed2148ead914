"""Rewards of a rollout: verifiers' sum, lengths, a model's score; metrics."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dppo_jax.base import Rollout
from dppo_jax.rewards.pool import VerifierPool
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
from dppo_jax.runtime.rollouts.verify import verify_terms


class Rewarded(NamedTuple):
  """What a rollout earned.

  Attributes:
    texts: B completions.
    verdicts: B rewards with everything added, and reasons.
    metrics: `rewards/…`.
  """

  texts: list[str]
  verdicts: list[Verdict]
  metrics: dict[str, float]


def reward(
  tokenizer: Any,
  stream: Any,
  pool: VerifierPool,
  rollout: Rollout,
  prompt_length: int,
  group_size: int,
  shaping: ShapingConfig,
  stop_strings: tuple[str, ...] = (),
  model: RewardModel | None = None,
  own: np.ndarray | None = None,
  num_texts: int = 0,
  truncated: str = 'zero',
) -> Rewarded:
  """Has a rollout verified, and adds what its lengths and a model give.

  Args:
    tokenizer: of the policy.
    stream: where the prompts came from.
    pool: the verifiers.
    rollout: on the host, B rows.
    prompt_length: P.
    group_size: G.
    shaping: what lengths add.
    stop_strings: a text ends with the first of them.
    model: reads the prompts as their rows have them, and the completions.
    own: rows to verify here, of `host_rows.own_rows`; None for all.
    num_texts: completions of other hosts to return, from the first row on.
    truncated: a key of `TRUNCATED_POLICIES`.
  """
  texts, found = verify_terms(
    tokenizer,
    stream,
    pool,
    rollout,
    prompt_length,
    stop_strings,
    own,
    num_texts,
    truncated,
  )
  verdicts = combine(pool.terms, found)
  lengths = np.asarray(rollout.completion_mask).sum(axis=1)
  lengths = host_rows.total(lengths)
  # Of the first term alone: a reward for the format makes no answer right.
  right = [is_right(verdict) for verdict in found[0]]
  added = shape(lengths, right, group_size, shaping)
  metrics = verdict_metrics(pool.terms, found)
  if any(term.name != 'none' for term in shaping.terms):
    metrics['rewards/shaping'] = float(np.mean(added))
  if model is not None:
    examples = stream.examples(rollout.example_id)
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
