import pytest

from dppo_jax.runtime.config import microbatches
from tests.support import runs


def _resolve(num_devices=1, **overrides):
  """Of 8 groups of 4 rows, P = 6, in 2 minibatches."""
  settings = runs.config(
    **{
      'learner__num_microbatches': 0,
      'sampling__max_completion_length': 8186,
      **overrides,
    }
  )
  return microbatches.resolve(settings.to_dict(), num_devices)


@pytest.mark.parametrize(
  ('columns', 'expected'),
  [(7, 1), (506, 1), (507, 2), (1018, 2), (1019, 4), (8186, 16), (9000, 16)],
)
def test_a_microbatch_holds_so_many_tokens_or_one_row(columns, expected):
  assert _resolve(sampling__max_completion_length=columns) == expected


def test_rows_ordered_by_length_are_cut_into_twice_as_many():
  assert _resolve(sampling__max_completion_length=506) == 1
  found = _resolve(
    sampling__max_completion_length=506, learner__length_buckets=2
  )
  assert found == 2


def test_each_device_has_so_many_tokens():
  assert _resolve(num_devices=8) == 2
  assert _resolve(num_devices=8, mesh__tensor=2) == 4
  assert _resolve(num_devices=8, mesh__fsdp=8) == 2


def test_a_number_that_is_set_stands():
  assert _resolve(learner__num_microbatches=2) == 2


def test_rows_are_divided_where_no_power_of_two_does():
  found = _resolve(
    data__num_prompts=6, data__group_size=3, learner__num_minibatches=2
  )
  assert found == 9


def test_rows_that_the_mesh_does_not_divide_are_a_problem_of_the_config():
  assert _resolve(num_devices=64) == 1
  with pytest.raises(ValueError, match='which the 64 batch shards'):
    runs.experiment(runs.config(learner__num_microbatches=0), 64)


def test_the_experiment_has_the_number():
  settings = runs.config(
    learner__num_microbatches=0, sampling__max_completion_length=1100
  )
  found = runs.experiment(settings)
  assert found.learner.num_microbatches == 4
  assert found.loss.shared_rows == 4
  # As given: another number of devices resumes the run.
  assert found.resolved['learner']['num_microbatches'] == 0
