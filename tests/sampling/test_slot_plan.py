import dataclasses

import pytest

from dppo_jax.sampling import slot_plan
from tests.support import factories


def test_as_many_slots_as_rows_need_no_plan():
  settings = factories.sampling_config(group_size=4, num_slots=32)
  assert slot_plan.plan_for(settings, 8, 1) is None
  more = dataclasses.replace(settings, num_slots=33)
  assert slot_plan.plan_for(more, 8, 1) is None
  some = dataclasses.replace(settings, num_slots=31)
  assert slot_plan.plan_for(some, 8, 1) is not None


@pytest.mark.parametrize('group_size', [1, 3, 8, 16])
@pytest.mark.parametrize('shards', [1, 4])
@pytest.mark.parametrize('at_once', [4, 12, 48, 512])
def test_a_plan_fits_together(group_size, shards, at_once):
  num_rows = 64 * group_size * 4
  plan = slot_plan.plan_slots(num_rows, group_size, at_once, shards)
  assert plan.rows * shards == num_rows
  assert plan.slots * shards == at_once
  assert plan.rows % plan.refill == plan.slots % plan.refill == 0
  assert 1 <= plan.refill <= max(1, plan.slots // 16)
  # Rows first, first + 1, … of a refill have just these prompts.
  for first in range(0, plan.rows, plan.refill):
    groups = {row // group_size for row in range(first, first + plan.refill)}
    assert len(groups) == plan.prompts
