"""The ledgers of two runs: which tokens each masked, where they sampled alike.

Runs of one seed sample the same completions until their policies part, so
their masks can be compared token by token. A completion is shared if both runs
have it in the same place of the same step, token for token.
"""

from typing import NamedTuple

import numpy as np

from dppo_jax.runtime.ledger.record import Record


class Masked(NamedTuple):
  """Masked tokens of one ledger.

  Attributes:
    num_tokens: of its steps.
    masked: of them, M = 0.
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
  """The masks of two ledgers on the tokens that they share.

  Attributes:
    num_tokens: of all tokens that they share.
    num_completions: that these are of.
    both: masked by both.
    first: masked by the first alone.
    second: by the second alone.
  """

  num_tokens: int
  num_completions: int
  both: int
  first: int
  second: int

  def agreement(self) -> float:
    """Masked by both, of those masked by any; NaN of none."""
    either = self.both + self.first + self.second
    return self.both / either if either else float('nan')


def count(record: Record) -> Masked:
  """Totals of the tokens that a ledger masked."""
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
  """Compares two ledgers on the completions that they share.

  Args:
    first: of some steps.
    second: of the same or others; other steps share nothing.
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
