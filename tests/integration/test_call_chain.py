"""How many calls a reader follows, counted on the stack.

From `experiments/train.py: main` to the train step, and from the train step to
the equation of a divergence. Frames of libraries in between do not count.
"""

import pathlib
import traceback
from unittest import mock

import jax.numpy as jnp
import pytest

import dppo_jax
from dppo_jax.base import Batch, TokenStats
from dppo_jax.learner import train_step
from dppo_jax.ops import divergences
from dppo_jax.runtime import loop
from dppo_jax.runtime.programs import compiled
from dppo_jax.runtime.programs import parts as parts_lib
from tests.support import programs, runs

_PACKAGE = pathlib.Path(dppo_jax.__file__).parent


class _Reached(Exception):
  """Carries the names of the package's functions on the stack."""


def _stack(*_):
  frames = [
    frame.name
    for frame in traceback.extract_stack()
    if pathlib.Path(frame.filename).is_relative_to(_PACKAGE)
  ]
  raise _Reached(frames)


def _calls(after, run, *arguments):
  with pytest.raises(_Reached) as caught:
    run(*arguments)
  names = caught.value.args[0]
  return names[names.index(after) + 1 :]


@pytest.fixture(scope='module')
def experiment():
  return runs.experiment(runs.config(learner__head_chunk_tokens=8))


def test_from_the_train_step_to_a_divergence_in_at_most_8_calls(experiment):
  parts = parts_lib.assemble_model(experiment)
  state = parts.abstract_state
  data, loss = experiment.data, experiment.loss
  shape = (
    data.num_prompts * data.group_size,
    loss.prompt_length + experiment.sampling.max_completion_length,
  )
  top = (*shape, experiment.sampling.top_k)
  numbers, flags = (jnp.zeros(shape, kind) for kind in (jnp.int32, bool))
  stats = TokenStats(
    log_probs=jnp.zeros(shape),
    top_ids=jnp.zeros(top, jnp.int32),
    top_log_probs=jnp.zeros(top),
  )
  batch = Batch(
    tokens=numbers,
    token_mask=flags,
    completion_mask=flags,
    advantages=jnp.zeros(shape),
    rollout=stats,
  )
  step = compiled.compile_step(experiment, parts)
  row = divergences.DIVERGENCES[loss.divergence]
  spied = {loss.divergence: row._replace(fn=_stack)}
  with mock.patch.dict(divergences.DIVERGENCES, spied):
    names = _calls('train_step', step.lower, state, batch)
  # `head_loss` is a custom_vjp: of it the stack shows the forward rule alone.
  # It makes one call more, and the equation is another.
  assert names == [
    '_update',
    'policy_loss',
    '_forward',
    'run_on_device',
    'forward_and_back',
    '_forward',
  ]
  assert len(names) + 2 <= 8


def test_from_main_to_the_train_step_in_at_most_5_calls(tmp_path):
  """`main` calls `loop.run`, which is called here in its place."""
  with (
    programs.apart(),
    runs.quick_compilation(),
    mock.patch.object(train_step, 'train_step', _stack),
    pytest.raises(_Reached) as caught,
  ):
    loop.run(runs.experiment(runs.smallest()), tmp_path)
  names = caught.value.args[0]
  # `iterate` is a step of the loop; a StepProgram is called.
  assert names == ['run', 'iterate', '__call__', 'step']
  assert len(names) + 1 <= 5
