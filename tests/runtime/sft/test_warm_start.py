import jax
import numpy as np
import pytest

from dppo_jax.learner import state as state_lib
from dppo_jax.runtime.hosts.preemption import Preempted, StopRequest
from dppo_jax.runtime.sft.warm_start import warm_start
from tests.support import runs


def _start(settings, stop=None):
  with runs.quick_compilation():
    return warm_start(
      runs.experiment(settings), runs.parts(settings), stop or StopRequest()
    )


def _same(a, b):
  return jax.tree.map(np.array_equal, a, b)


def test_no_steps_is_the_initial_state():
  settings = runs.config(sft__num_steps=0, seed=3)
  parts = runs.parts(settings)
  with runs.quick_compilation():
    initial = state_lib.init_state(
      parts.policy, parts.optimizer, parts.shardings, 3
    )
  assert all(jax.tree.leaves(_same(_start(settings), initial)))


def test_it_learns_and_restarts_at_step_0(capsys):
  settings = runs.config()
  state = _start(settings)
  losses = [
    float(line.partition('loss ')[2].split(',')[0])
    for line in capsys.readouterr().err.splitlines()
  ]
  assert losses[-1] < losses[0] - 0.3
  assert int(state.step) == 0
  parts = runs.parts(settings)
  with runs.quick_compilation():
    moments = parts.optimizer.init(state.params)
  assert all(jax.tree.leaves(_same(state.opt_state, moments)))


def test_a_request_to_stop_ends_it():
  stop = StopRequest()
  stop.signal_number = 15
  with pytest.raises(
    Preempted, match=r'Stopped after step 1 of the warm start, before the'
  ):
    _start(runs.config(), stop)
