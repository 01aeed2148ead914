"""Saved before evaluated, and stopped at once; with stand-ins for the rest."""

import os
import signal
import threading
from types import SimpleNamespace

import pytest

from dppo_jax.runtime import milestones as milestones_lib
from dppo_jax.runtime.evaluation.evaluate import EvaluationStopped
from dppo_jax.runtime.hosts import preemption
from dppo_jax.runtime.milestones import Milestones

# Seconds that platforms give after the notice of a preemption.
_NOTICE_S = 30


class _Fakes:
  """Everything around the milestones; notes what is done, in order."""

  def __init__(self, evaluate=None, evaluated=False):
    self.done = []
    self.evaluate = evaluate
    self.recorder = SimpleNamespace(
      evaluated=evaluated,
      flush=lambda: None,
      evaluation=self._note('record', 1),
      warn_of_failures=lambda *_: None,
      progress=SimpleNamespace(note=lambda _: None),
    )
    self.checkpoints = SimpleNamespace(
      save=self._note('save', 1),
      wait=self._note('wait', 0),
      add_score=self._note('score', 1),
    )

  def _note(self, name, count):
    return lambda *args: self.done.append((name, *args[:count]))

  def _evaluate(self, state, size, stopped):
    self.done.append(('evaluate', state.step, size))
    if self.evaluate is not None:
      self.evaluate(stopped)
    return SimpleNamespace(metrics={}, sampled=SimpleNamespace(verdicts=[]))

  def milestones(self, stop, **about):
    experiment = SimpleNamespace(
      num_steps=6,
      checkpoints=SimpleNamespace(every_n_steps=2),
      evaluation=SimpleNamespace(
        every_n_steps=3, num_prompts=8, final_num_prompts=16
      ),
    )
    return Milestones(
      experiment,
      SimpleNamespace(held_out=None),
      workdir=None,
      evaluate=self._evaluate,
      checkpoints=self.checkpoints,
      recorder=self.recorder,
      queue=SimpleNamespace(pending=lambda: ()),
      stop=stop,
      about=about,
    )


class _State:
  """Its `vars` are the fields of a TrainState."""

  def __init__(self, step):
    self.step = step
    self.params = self.opt_state = self.key = None


@pytest.fixture(autouse=True)
def no_results(monkeypatch):
  monkeypatch.setattr(milestones_lib, 'write_results', lambda *_: None)


def test_a_step_is_saved_then_evaluated_then_scored():
  fakes = _Fakes()
  milestones = fakes.milestones(preemption.StopRequest())
  milestones.begin(_State(0), resumed=False)
  for step in range(1, 7):
    milestones.after(step, _State(step))
  assert fakes.done == [
    ('save', 0),
    ('evaluate', 0, 16),
    ('score', 0),
    ('record', 0),
    ('save', 2),
    ('evaluate', 3, 8),
    ('record', 3),  # Without a checkpoint there is nothing to score.
    ('save', 4),
    ('save', 6),
    ('evaluate', 6, 16),
    ('score', 6),  # Before the metrics, which say that it was evaluated.
    ('record', 6),
  ]


@pytest.mark.parametrize(
  ('step', 'evaluated', 'expected'),
  [
    (3, False, [('evaluate', 3, 8), ('score', 3), ('record', 3)]),
    (3, True, []),
    (4, False, []),
  ],
)
def test_a_resumed_run_evaluates_what_was_left(step, evaluated, expected):
  fakes = _Fakes(evaluated=evaluated)
  milestones = fakes.milestones(preemption.StopRequest())
  milestones.begin(_State(step), resumed=True)
  assert fakes.done == expected


def test_whoever_is_stopped_saves_and_does_not_evaluate():
  fakes, stop = _Fakes(), preemption.StopRequest()
  stop.signal_number = signal.SIGTERM
  with pytest.raises(preemption.Preempted, match='after step 3 of 6') as caught:
    fakes.milestones(stop).after(3, _State(3))
  assert caught.value.exit_code == 143
  assert fakes.done == [('save', 3), ('wait',)]


@pytest.mark.parametrize(
  ('step', 'expected'),
  [
    (3, [('evaluate', 3, 8), ('save', 3), ('wait',)]),
    (6, [('save', 6), ('evaluate', 6, 16), ('wait',)]),
  ],
)
def test_an_evaluation_that_was_left_is_not_recorded(step, expected):
  stop = preemption.StopRequest()

  def leave(stopped):
    stop.signal_number = signal.SIGHUP
    assert stopped()
    raise EvaluationStopped

  fakes = _Fakes(leave)
  with pytest.raises(preemption.Preempted) as caught:
    fakes.milestones(stop).after(step, _State(step))
  assert caught.value.exit_code == 129
  assert fakes.done == expected


class _LeftError(Exception):
  """The process would have ended."""


def _never_ends(monkeypatch):
  """A stand-in for native code that comes back for no signal; exit codes."""
  codes, left = [], threading.Event()

  def leave(code):
    codes.append(code)
    left.set()

  def deaf(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    assert left.wait(_NOTICE_S), 'not within the notice'
    raise _LeftError

  monkeypatch.setattr(preemption, '_may_leave', True)
  monkeypatch.setattr(preemption, '_leave', leave)
  monkeypatch.setattr(preemption, 'GRACE_S', 0.1)
  return deaf, codes


def test_a_notice_is_enough_where_an_evaluation_takes_minutes(
  monkeypatch, capsys
):
  deaf, codes = _never_ends(monkeypatch)
  fakes = _Fakes(deaf)
  with preemption.stop_on_signals() as stop, pytest.raises(_LeftError):
    fakes.milestones(stop).after(3, _State(3))
  # Nothing was due to be saved: the thread that hears of signals does it.
  assert fakes.done == [('evaluate', 3, 8), ('save', 3), ('wait',)]
  assert codes == [143]
  said = capsys.readouterr().err
  assert 'Stopped after step 3 of 6; the state is saved.' in said


def test_a_step_that_compiles_is_left_at_the_state_before_it(monkeypatch):
  deaf, codes = _never_ends(monkeypatch)
  fakes = _Fakes(evaluated=True)
  with preemption.stop_on_signals() as stop:
    milestones = fakes.milestones(stop)
    milestones.begin(_State(4), resumed=True)
    with pytest.raises(_LeftError), milestones.abandonable(_State(4)):
      deaf()
  assert fakes.done == [('wait',)]  # It is on disk; the state may be donated.
  assert codes == [143]
