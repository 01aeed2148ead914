"""Table rows of finished runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import math
from typing import Any

import numpy as np

from dppo_jax.analysis.jobs.job import Outcome
from dppo_jax.analysis.ledger import tables
from dppo_jax.analysis.ledger.replay import Decided
from dppo_jax.analysis.table import Row
from dppo_jax.runtime.ledger import files
from dppo_jax.runtime.ledger.record import Record
from dppo_jax.runtime.storage import metrics_log

_MASKED = 'trust_region/fraction_masked'
# Column of the points -> metric of a run.
COLUMNS = {
  'reward': 'rewards/mean',
  'mean_abs': 'mismatch/mean_abs',
  'max': 'mismatch/max',
  'min': 'mismatch/min',
  'masked': 'trust_region/fraction_masked',
  'dropped': 'trust_region/mean_dropped_weight',
  'masked_rare': 'trust_region/fraction_masked_rare',
  'bad_updates': 'trust_region/bad_updates',
  'entropy': 'rollout/entropy_mean',
  'held_out': 'evaluation/sampled_accuracy',
}


def step_rows(
  columns: Mapping[str, str],
) -> Callable[[Sequence[Outcome]], Iterator[Row]]:
  """Function of outcomes that yields one row per step of every finished run.

  Args:
    columns: metric by column; steps without the metric have an empty cell, as
      most have for held-out accuracy.
  """

  def rows(outcomes: Sequence[Outcome]) -> Iterator[Row]:
    for outcome in outcomes:
      for step, metrics in steps(outcome).items():
        yield {
          'variant': outcome.job.name,
          'seed': outcome.job.seed,
          'step': step,
          **{
            name: float(metrics[metric]) if metric in metrics else math.nan
            for name, metric in columns.items()
          },
        }

  return rows


def with_ledger(
  columns: Mapping[str, str],
  measures: Mapping[str, Callable[[Record], float]],
) -> Callable[[Sequence[Outcome]], Iterator[Row]]:
  """Like `step_rows`, with measures of the ledger in addition to metrics.

  Args:
    columns: see `step_rows`.
    measures: functions of a step's record, by column; empty for other steps.
  """
  plain = step_rows(columns)

  def rows(outcomes: Sequence[Outcome]) -> Iterator[Row]:
    for outcome in outcomes:
      recorded = files.find_steps(outcome.folder)
      for row in plain([outcome]):
        found = dict.fromkeys(measures, math.nan)
        if row['step'] in recorded:
          record = files.load_steps(outcome.folder, str(row['step']))
          found = {name: fn(record) for name, fn in measures.items()}
        yield {**row, **found}

  return rows


def mean_of_masked(
  column: Callable[[Record], np.ndarray | None],
) -> Callable[[Record], float]:
  """Function record -> mean of a column over masked tokens; NaN for none."""

  def measure(record: Record) -> float:
    values = column(record)
    masked = record.keep == 0
    if values is None or not masked.any():
      return math.nan
    return float(values[masked].mean())

  return measure


# Measures of masked tokens: their mu, and the entropy under mu in nats.
MASKED = {
  'masked_mu': mean_of_masked(lambda r: np.exp(r.rollout_log_probs)),
  'masked_entropy': mean_of_masked(lambda r: r.rollout_entropy),
}


def top_k_mass(count: int) -> Callable[[Record], float]:
  """Function record -> mean mass of mu's `count` most likely tokens.

  NaN if fewer are recorded.
  """

  def measure(record: Record) -> float:
    top = record.rollout_top_log_probs
    if top is None or top.shape[1] < count:
      return math.nan
    return float(np.exp(top[:, :count].astype(np.float64)).sum(1).mean())

  return measure


def probability_of_first(token: int) -> Callable[[Record], float]:
  """Function record -> mu of a token at the first position, mean over rows.

  0 in rows whose recorded top tokens do not include it; NaN if none are
  recorded.
  """

  def measure(record: Record) -> float:
    ids, top = record.top_ids, record.rollout_top_log_probs
    if ids is None or top is None:
      return math.nan
    first = record.position == 0
    found = np.where(ids[first] == token, np.exp(top[first]), 0.0)
    return float(found.sum(1).mean()) if first.any() else math.nan

  return measure


def steps(outcome: Outcome) -> dict[int, dict[str, Any]]:
  """Metrics of a run by step, lines of a step merged."""
  merged: dict[int, dict[str, Any]] = {}
  for row in metrics_log.read_rows(outcome.folder / metrics_log.METRICS_FILE):
    merged.setdefault(int(row['step']), {}).update(row)
  return dict(sorted(merged.items()))


def masked_rows(outcomes: Sequence[Outcome]) -> Iterator[Row]:
  """Masked shares of runs: in total, by range of mu and by token.

  Yields:
    Rows of kind 'run' over all steps, and of kinds 'mu' and 'token' over the
    recorded ones, without infrequent tokens. 'masked' and 'masked_rare' are
    shares of all tokens, 'masked_negative' and 'masked_positive' shares of the
    label's tokens with A < 0 and A > 0; 'tokens' counts the label's tokens.
  """
  for outcome in outcomes:
    named = {'variant': outcome.job.name, 'seed': outcome.job.seed}
    metrics = [m for m in steps(outcome).values() if _MASKED in m]
    yield {
      'kind': 'run',
      **named,
      'label': 'all',
      'tokens': 0,
      'masked': float(np.mean([m[_MASKED] for m in metrics])),
      'masked_rare': float(np.mean([m[f'{_MASKED}_rare'] for m in metrics])),
      'masked_negative': math.nan,
      'masked_positive': math.nan,
    }
    record = files.load_steps(outcome.folder, 'all')
    rule: Any = None  # Its decisions are those recorded.
    decided = Decided(rule, record.divergence, record.keep)
    kinds = {
      'mu': tables.by_mu(record, decided),
      'token': [
        tables.share(record, decided, piece, record.token == i)
        for i, piece in sorted(record.pieces.items())
        if np.mean(record.token == i) >= _SELDOM
      ],
    }
    for kind, shares in kinds.items():
      for one in shares:
        yield {
          'kind': kind,
          **named,
          'label': one.label,
          'tokens': one.num_tokens,
          'masked': one.fraction(),
          'masked_rare': math.nan,
          'masked_negative': one.masked_negative / max(one.negative, 1),
          'masked_positive': one.masked_positive / max(one.positive, 1),
        }


# Least frequency of a token whose masked share is reported; rarer is noise.
_SELDOM = 0.001
# Every ninth token is plotted.
_EVERY = 9
# DPPO section 6: rare below .1; common, from .5, is our choice.
_RARE, _COMMON = 0.1, 0.5


def token_rows(outcomes: Sequence[Outcome]) -> Iterator[Row]:
  """Probabilities pi and mu of recorded tokens, with ratio and TV.

  Yields:
    One row of kind 'run' per run: means of |pi - mu| over all tokens
    ('mean_abs'), rare and common ones ('tv_rare', 'tv_common'), and of |log r|
    ('log_rare', 'log_common'); and rows of kind 'token' with 'mu', 'ratio' and
    'tv'.
  """
  for outcome in outcomes:
    named = {'variant': outcome.job.name, 'seed': outcome.job.seed}
    record = files.load_steps(outcome.folder, 'all')
    log_mu = record.rollout_log_probs.astype(np.float64)
    log_pi = record.log_probs.astype(np.float64)
    mu, log_ratio = np.exp(log_mu), log_pi - log_mu
    tv = np.abs(np.exp(log_pi) - mu)

    def mean(values: np.ndarray, tokens: np.ndarray) -> float:
      return float(values[tokens].mean()) if tokens.any() else math.nan

    rare, common = mu < _RARE, mu >= _COMMON
    nothing = {'mu': math.nan, 'ratio': math.nan, 'tv': math.nan}
    means = {
      'mean_abs': float(tv.mean()),
      'tv_rare': mean(tv, rare),
      'tv_common': mean(tv, common),
      'log_rare': mean(np.abs(log_ratio), rare),
      'log_common': mean(np.abs(log_ratio), common),
    }
    yield {'kind': 'run', **named, **means, **nothing}
    no_means = dict.fromkeys(means, math.nan)
    for place in range(0, len(mu), _EVERY):
      token = {
        'mu': float(mu[place]),
        'ratio': float(np.exp(log_ratio[place])),
        'tv': float(tv[place]),
      }
      yield {'kind': 'token', **named, **no_means, **token}
