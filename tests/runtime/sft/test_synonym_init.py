import jax
import numpy as np
import pytest

from dppo_jax.data import tasks
from dppo_jax.runtime.programs import state as state_lib
from dppo_jax.runtime.sft.synonym_init import first_spellings, shared_start
from tests.support import runs


def _states(**overrides):
  """Before and after, f32 [V, D] embeddings, and the digits of the tokens."""
  settings = runs.smallest(**overrides)
  experiment, parts = runs.experiment(settings), runs.parts(settings)

  def begin():
    return state_lib.initial_state(
      experiment, parts, parts.optimizer, parts.shardings
    )

  with runs.quick_compilation():
    after = shared_start(experiment, parts.task, begin(), parts.shardings)
    return jax.device_get((begin(), after)), parts.task.digits


_ALIASES = {
  'data__task': 'alias_sort',
  'data__max_prompt_length': 7,
  'rewards__verifier': 'alias_sort',
}


@pytest.fixture(scope='module')
def aliases():
  return _states(**_ALIASES)


def test_synonyms_of_a_digit_start_with_nearby_embeddings(aliases):
  (before, after), digits = aliases
  table, own = after.params['embedding'], before.params['embedding']
  first = first_spellings(digits)
  further = first != np.arange(len(digits))
  assert further.sum() == 10 * (tasks.NUM_ALIASES - 1)
  np.testing.assert_array_equal(table[~further], own[~further])
  expected = own[first[further]] + 0.5 * own[further]
  np.testing.assert_allclose(table[further], expected, rtol=1e-6)


def test_nothing_else_changes(aliases):
  (before, after), _ = aliases
  rest = [
    {k: v for k, v in state.params.items() if k != 'embedding'}
    for state in (before, after)
  ]
  assert jax.tree.all(jax.tree.map(np.array_equal, *rest))
  assert jax.tree.all(jax.tree.map(np.array_equal, before.key, after.key))


def test_a_task_without_synonyms_is_unchanged():
  (before, after), _ = _states()
  assert jax.tree.all(jax.tree.map(np.array_equal, before, after))


def test_words_without_a_digit_map_to_themselves():
  digits = np.array([-1, 3, -1, 5, 3], np.int32)
  assert first_spellings(digits).tolist() == [0, 1, 2, 3, 1]
