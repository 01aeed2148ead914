"""Ledgers of two runs: which tokens each masked, on identical completions.

Runs of one seed sample the same completions until their policies differ, so
their masks can be compared token by token. A completion is shared if both runs
sampled it at the same place of the same step, token for token.
"""

from typing import NamedTuple

import numpy as np

from dppo_jax.runtime.ledger.record import Record


class Masked(NamedTuple):
  """Masked tokens of one ledger.

  Attributes:
    num_tokens: tokens of its steps.
    masked: tokens with M = 0.
    negative: masked with A < 0.
    positive: masked with A > 0.
    rare: masked with mu < .1.
    dropped: sum of 1 - M.
  """

  num_tokens: int
  masked: int
  negative: int
  positive: int
  rare: int
  dropped: float


class Overlap(NamedTuple):
  """Masks of two ledgers on the tokens that they share.

  Attributes:
    num_tokens: shared tokens.
    num_completions: shared completions.
    both: tokens masked by both.
    first: tokens masked by the first only.
    second: tokens masked by the second only.
  """

  num_tokens: int
  num_completions: int
  both: int
  first: int
  second: int

  def agreement(self) -> float:
    """Share masked by both, of tokens masked by either; NaN without any."""
    either = self.both + self.first + self.second
    return self.both / either if either else float('nan')


def count(record: Record) -> Masked:
  """Counts of the tokens that a ledger masked."""
  masked = record.keep == 0
  rare = record.rollout_log_probs < np.log(0.1)
  return Masked(
    num_tokens=len(masked),
    masked=int(masked.sum()),
    dropped=float(np.sum(1.0 - record.keep, dtype=np.float64)),
    negative=int((masked & (record.advantages < 0)).sum()),
    positive=int((masked & (record.advantages > 0)).sum()),
    rare=int((masked & rare).sum()),
  )


def overlap(first: Record, second: Record) -> Overlap:
  """Overlap of two ledgers on the completions that they share.

  Args:
    first: of some steps.
    second: of the same or other steps; different steps share nothing.
  """
  mine, theirs = _completions(first), _completions(second)
  tokens = [0, 0, 0, 0]
  completions = 0
  for place, (ids, masked) in mine.items():
    if place not in theirs or not np.array_equal(ids, theirs[place][0]):
      continue
    other_masked = theirs[place][1]
    completions += 1
    parts = (masked & other_masked, masked & ~other_masked)
    both, alone = (int(part.sum()) for part in parts)
    found = (len(ids), both, alone, int((other_masked & ~masked).sum()))
    tokens = [a + b for a, b in zip(tokens, found, strict=True)]
  return Overlap(tokens[0], completions, *tokens[1:])


def _completions(
  record: Record,
) -> dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]]:
  """Tokens and masks by step, prompt and place: i32 [t], bool [t] each."""
  found = {}
  lengths = record.lengths()
  ends = np.cumsum(lengths)
  places: dict[int, int] = {}
  for row, end in enumerate(ends.tolist()):
    step = int(record.step[row])
    place = places[step] = places.get(step, -1) + 1
    tokens = slice(end - int(lengths[row]), end)
    key = (step, place, int(record.example_id[row]))
    found[key] = (record.token[tokens], record.keep[tokens] == 0)
  return found
