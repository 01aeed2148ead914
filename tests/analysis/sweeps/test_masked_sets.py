import dataclasses
import math

import numpy as np

from dppo_jax.analysis.sweeps import masked_sets
from dppo_jax.runtime.ledger import record
from tests.support import ledger_records as records


def test_count():
  # Masked are tokens 0, mu .92 with A < 0, and 5, mu .005 with A > 0.
  assert masked_sets.count(records.hand_made()) == (6, 2, 1, 1, 1, 2.0)


def test_overlap():
  first = records.hand_made()
  keep = np.array([0, 0, 1, 1, 1, 1], np.float32)
  second = dataclasses.replace(first, keep=keep)
  found = masked_sets.overlap(first, second)
  assert found == (6, 2, 1, 1, 1)
  assert found.agreement() == 1 / 3


def test_a_completion_that_differs_is_not_shared():
  first = records.hand_made()
  other = dataclasses.replace(
    first, token=np.array([2, 3, 3, 1, 4, 2], np.int32)
  )
  assert masked_sets.overlap(first, other) == (2, 1, 1, 0, 0)
  elsewhere = dataclasses.replace(first, example_id=first.example_id + 1)
  assert masked_sets.overlap(first, elsewhere).num_tokens == 0
  later = dataclasses.replace(first, step=first.step + 1)
  nothing = masked_sets.overlap(first, later)
  assert nothing.num_completions == 0
  assert math.isnan(nothing.agreement())


def test_places_are_counted_within_a_step():
  one = records.hand_made()
  two = dataclasses.replace(one, step=one.step + 1, keep=np.ones(6, np.float32))
  both = record.merge([one, two])
  assert masked_sets.overlap(both, one) == (6, 2, 2, 0, 0)
  assert masked_sets.overlap(both, two) == (6, 2, 0, 0, 0)
  assert masked_sets.overlap(both, both) == (12, 4, 2, 0, 0)
