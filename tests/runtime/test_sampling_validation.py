import pytest

from dppo_jax.runtime.sampling_validation import slot_problems
from tests import runs


@pytest.mark.parametrize(
  ('rows_at_once', 'num_devices', 'messages'),
  [
    (0, 8, []),
    (5, 1, []),
    (24, 8, []),
    (32, 8, []),
    (
      33,
      8,
      [
        'sampling.rows_at_once: got 33; a step samples 32 completions'
        ' (data.num_prompts=8 times data.group_size=4); set at most 32, or 0'
        ' for all of them.'
      ],
    ),
    (
      12,
      8,
      [
        'sampling.rows_at_once: got 12, which the 8 batch shards of the mesh'
        ' (data times fsdp times expert) do not divide; the nearest that fit:'
        ' 8 and 16.'
      ],
    ),
    (
      3,
      8,
      [
        'sampling.rows_at_once: got 3, which the 8 batch shards of the mesh'
        ' (data times fsdp times expert) do not divide; the nearest that fit:'
        ' 8.'
      ],
    ),
  ],
)
def test_each_problem_is_a_sentence(rows_at_once, num_devices, messages):
  config = runs.config().to_dict()
  config['data'] |= {'num_prompts': 8, 'group_size': 4}
  config['sampling'] |= {'rows_at_once': rows_at_once}
  assert list(slot_problems(config, num_devices)) == messages


def test_a_wrong_mesh_is_told_of_elsewhere():
  config = runs.config().to_dict()
  config['mesh'] |= {'data': 3, 'fsdp': 3}
  config['sampling'] |= {'rows_at_once': 3}
  assert not list(slot_problems(config, 8))
