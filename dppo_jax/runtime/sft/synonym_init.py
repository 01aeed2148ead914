"""Tokens that spell the same digit begin alike."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.base import TrainState
from dppo_jax.data.tasks import Task
from dppo_jax.runtime.config.experiment import Experiment

_EMBEDDING = 'embedding'
_OWN = 0.5  # Share of its own row that a further spelling keeps.


def shared_start(
  experiment: Experiment, task: Task, state: TrainState, shardings: TrainState
) -> TrainState:
  """Gives spellings of a digit one embedding, and half of their own on top.

  Without it a small policy does not find out within a warm start which of
  thousands of words mean the same, as published models know of theirs.

  Args:
    experiment: the run; with a published model or a tokenizer of its own,
      nothing changes.
    task: whose `digits` tell; without several spellings nothing changes.
    state: at step 0, donated where anything changes.
    shardings: of it.
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
  """For every token the first one that spells its digit, i64 [V].

  Args:
    digits: i32 [V], -1 where a token spells none; such stand for themselves.

  >>> first_spellings(np.array([-1, 4, 7, -1, 4, 7]))
  array([0, 1, 2, 3, 1, 2])
  """
  first = np.arange(digits.size)
  for digit in np.unique(digits[digits >= 0]):
    first[digits == digit] = np.flatnonzero(digits == digit)[0]
  return first
