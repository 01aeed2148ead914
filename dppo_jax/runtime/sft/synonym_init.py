"""Initial embeddings that synonyms share."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.base import TrainState
from dppo_jax.data.tasks import Task
from dppo_jax.runtime.config.experiment import Experiment

_EMBEDDING = 'embedding'
_OWN = 0.5  # Weight of a synonym's own initial embedding.


def shared_start(
  experiment: Experiment, task: Task, state: TrainState, shardings: TrainState
) -> TrainState:
  """State in which the synonyms of a digit have nearby embeddings.

    e_i = e_first + e_i / 2,  for every further token i of the same digit

  Pretrained models know synonyms. A small policy would not learn within a warm
  start which of thousands of tokens mean the same.

  Args:
    experiment: the run; with pretrained weights or a tokenizer nothing changes.
    task: its `digits` are the digit of each token; without synonyms nothing
      changes.
    state: at step 0; donated if it changes.
    shardings: of the state.
  """
  first = first_spellings(task.digits)
  unchanged = np.array_equal(first, np.arange(first.size))
  if unchanged or experiment.model.pretrained or experiment.data.tokenizer:
    return state
  further = np.flatnonzero(first != np.arange(first.size))

  def begin(state: TrainState) -> TrainState:
    table = state.params[_EMBEDDING]
    alike = jnp.take(table, first[further], axis=0)
    table = table.at[further].set(alike + _OWN * table[further])
    return dataclasses.replace(
      state, params={**state.params, _EMBEDDING: table}
    )

  return jax.jit(begin, out_shardings=shardings, donate_argnums=0)(state)


def first_spellings(digits: np.ndarray) -> np.ndarray:
  """First token with the same digit, for every token: i64 [V].

  Args:
    digits: i32 [V], -1 for a token without a digit, which maps to itself.

  >>> first_spellings(np.array([-1, 4, 7, -1, 4, 7]))
  array([0, 1, 2, 3, 1, 2])
  """
  first = np.arange(digits.size)
  for digit in np.unique(digits[digits >= 0]):
    first[digits == digit] = np.flatnonzero(digits == digit)[0]
  return first
