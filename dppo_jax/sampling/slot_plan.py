"""How many rows are decoded at once, and how many are started together."""

import dataclasses
import math

from dppo_jax.sampling.decode import SamplingConfig

# A refill takes at most 1/16 of the slots. On average half a refill's slots are
# idle, which is 3 % of the work; smaller refills need more prefills.
_REFILLS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlotPlan:
  """Sizes of continuous batching, per shard except `shards`.

  Attributes:
    shards: D, batch shards.
    rows: b, completions to sample.
    slots: s, sequences decoded at once.
    refill: F, rows started per refill; divides `rows` and `slots`.
    prompts: M, prompts per refill.
  """

  shards: int
  rows: int
  slots: int
  refill: int
  prompts: int


def plan_slots(
  num_rows: int, group_size: int, num_slots: int, shards: int
) -> SlotPlan:
  """Plan with the largest refill of at most 1/16 of the slots.

  A refill is a fraction of a group or several groups, which minimizes the
  number of prefills.

  >>> plan_slots(4096, 16, 512, 2)
  SlotPlan(shards=2, rows=2048, slots=256, refill=16, prompts=1)
  """
  rows, slots = num_rows // shards, num_slots // shards
  refill = max(
    size
    for size in range(1, max(1, slots // _REFILLS) + 1)
    if math.gcd(rows, slots) % size == 0
    and (group_size % size == 0 or size % group_size == 0)
  )
  return SlotPlan(
    shards=shards,
    rows=rows,
    slots=slots,
    refill=refill,
    prompts=max(1, refill // group_size),
  )


def plan_for(
  config: SamplingConfig, num_prompts: int, shards: int
) -> SlotPlan | None:
  """Plan for N prompts; None if all rows are decoded at once."""
  num_rows = num_prompts * config.group_size
  if not 0 < config.num_slots < num_rows:
    return None
  return plan_slots(num_rows, config.group_size, config.num_slots, shards)
