"""Checkpoint named by a flag: a step, the latest, or the best."""

import pathlib

from dppo_jax.runtime.storage.checkpoints import Checkpoints
from dppo_jax.runtime.storage.files import step_number


def find_step(
  store: Checkpoints, workdir: pathlib.Path, step: str
) -> int | None:
  """Step of the checkpoint that --step names; None for the latest intact one.

  Args:
    store: of the run.
    workdir: of the run, for the message.
    step: 'best', 'latest' or a number.

  Raises:
    ValueError: there is no such checkpoint.
  """
  steps = store.steps()
  if not steps:
    raise ValueError(
      f'--workdir: {workdir} holds no checkpoint yet; the first is saved'
      ' after the warm start.'
    )
  if step == 'latest':
    return None
  if step == 'best':
    number = store.best_step()
    if number is None:
      raise ValueError(
        f'--step: best, but none of the checkpoints {steps} was saved with'
        f' {store.best_metric}; use latest or a number.'
      )
    return number
  number = step_number(step)
  if number not in steps:
    raise ValueError(
      f'--step: no checkpoint {step!r}; there are {steps}, best and latest.'
    )
  return number
