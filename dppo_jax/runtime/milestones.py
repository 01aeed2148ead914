"""Checkpoints and evaluations of a run: what happens between its steps.

A step is saved before it is evaluated. An evaluation may take minutes, and the
notice of a preemption seconds: whoever is stopped leaves the evaluation to the
run that resumes, which then adds its score to the checkpoint.
"""

from collections.abc import Mapping
import contextlib
import functools
import pathlib
import time
from typing import Any

from dppo_jax.base import TrainState
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.evaluation.evaluate import EvaluateFn, EvaluationStopped
from dppo_jax.runtime.evaluation.results import write_results
from dppo_jax.runtime.hosts import coordination
from dppo_jax.runtime.hosts.preemption import StopRequest
from dppo_jax.runtime.programs.parts import Parts
from dppo_jax.runtime.reporting.recorder import Recorder, due
from dppo_jax.runtime.rollouts.ahead import RolloutQueue, RunState
from dppo_jax.runtime.storage.checkpoints import Checkpoints


class Milestones:
  """Saves and evaluates the steps that are due, and stops the run if asked."""

  def __init__(
    self,
    experiment: Experiment,
    parts: Parts,
    *,
    workdir: pathlib.Path,
    evaluate: EvaluateFn,
    checkpoints: Checkpoints,
    recorder: Recorder,
    queue: RolloutQueue,
    stop: StopRequest,
    about: Mapping[str, Any],
  ):
    """Saves nothing yet.

    Args:
      experiment: the run.
      parts: its parts.
      workdir: takes the results of evaluations.
      evaluate: the evaluation on the held-out split.
      checkpoints: of the run.
      recorder: takes metrics, and tells of both.
      queue: rollouts of later steps, a part of a checkpoint.
      stop: whether the run was asked to stop.
      about: metadata of every checkpoint.
    """
    self._experiment = experiment
    self._parts = parts
    self._workdir = workdir
    self._evaluate = evaluate
    self._checkpoints = checkpoints
    self._recorder = recorder
    self._queue = queue
    self._stop = stop
    self._about = about
    self._saved_step = -1

  def begin(self, state: TrainState, *, resumed: bool) -> None:
    """Saves the first state, and evaluates it unless that was done.

    Raises:
      Preempted: asked to stop; the state is saved.
      CheckpointError: it could not be saved.
    """
    step = int(state.step)
    if resumed:
      self._saved_step = step
    else:
      self._save(step, state)
    if self._is_evaluated(step) and not self._recorder.evaluated:
      self._evaluate_and_record(step, state)

  def abandonable(
    self, state: TrainState
  ) -> contextlib.AbstractContextManager[None]:
    """Within it, a signal ends the run at the state that it has saved.

    For the first step, which compiles for minutes.
    """
    finish = functools.partial(self._finish, int(state.step), state)
    return self._stop.may_abandon(finish)

  def after(self, step: int, state: TrainState) -> None:
    """Saves, evaluates, or stops after a step, as is due.

    Raises:
      Preempted: asked to stop; the state is saved.
      CheckpointError: it could not be saved.
    """
    stopping = self._stop.agreed()  # Once: a signal may come between two looks.
    last = step == self._experiment.num_steps
    every = self._experiment.checkpoints.every_n_steps
    if last or stopping or due(step, every):
      self._save(step, state)
    if stopping:  # What is left to evaluate is left to the run that resumes.
      raise self._stop.stop(self._finish(step, state))
    if self._is_evaluated(step):
      self._evaluate_and_record(step, state)

  def _is_evaluated(self, step: int) -> bool:
    every = self._experiment.evaluation.every_n_steps
    return self._is_end(step) or due(step, every)

  def _is_end(self, step: int) -> bool:
    return step in (0, self._experiment.num_steps)

  def _save(self, step: int, state: TrainState) -> None:
    self._recorder.flush()
    begin = time.perf_counter()
    whole = state
    if step:
      whole = RunState(**vars(state), queue=self._queue.pending())
    self._checkpoints.save(step, whole, {}, self._about)
    lost_s = time.perf_counter() - begin
    self._recorder.progress.note(
      f'step {step}: checkpoint, {lost_s:.2f} s of training lost'
    )
    self._saved_step = step

  def _finish(self, step: int, state: TrainState) -> str:
    """Saves what is not saved yet; returns what to say of it."""
    if self._saved_step != step:
      self._save(step, state)
    self._checkpoints.wait()
    return (
      f'Stopped after step {step} of {self._experiment.num_steps}; the state is'
      ' saved. Run the same command to resume.'
    )

  def _evaluate_and_record(self, step: int, state: TrainState) -> None:
    self._recorder.flush()
    schedule = self._experiment.evaluation
    size = schedule.num_prompts
    if self._is_end(step):
      size = schedule.final_num_prompts
    try:
      with self.abandonable(state):
        found = self._evaluate(state, size, self._stop.agreed)
    except EvaluationStopped:
      raise self._stop.stop(self._finish(step, state)) from None
    if self._saved_step == step:
      # Before its metrics are written, which say that it was evaluated.
      self._checkpoints.add_score(step, found.metrics)
    self._recorder.evaluation(step, found.metrics)
    self._recorder.warn_of_failures(found.sampled.verdicts, 'held-out')
    if coordination.is_primary():
      write_results(self._workdir, step, schedule, self._parts.held_out, found)
