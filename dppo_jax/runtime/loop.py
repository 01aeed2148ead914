"""The loop: sample, verify, update; evaluate, save, report.

A step is a function of the state and its number: prompts, keys and shuffles
derive from (seed, step). So a run that is killed and started again continues
bit for bit from its last checkpoint.
"""

import contextlib
import dataclasses
import functools
import pathlib
import sys
from typing import Any

from dppo_jax.base import TrainState
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.runtime import activity
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.evaluation.evaluate import compile_evaluation
from dppo_jax.runtime.hosts import coordination
from dppo_jax.runtime.hosts.preemption import StopRequest, stop_on_signals
from dppo_jax.runtime.iteration import IterateFn, compile_iteration
from dppo_jax.runtime.ledger.files import LedgerWriter
from dppo_jax.runtime.milestones import Milestones
from dppo_jax.runtime.programs import base_weights, inputs, kept_files
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.reporting import header, summary, writers
from dppo_jax.runtime.reporting.recorder import Recorder, Tracer
from dppo_jax.runtime.rollouts import reference_check
from dppo_jax.runtime.rollouts.ahead import RolloutQueue, RunState
from dppo_jax.runtime.rollouts.reward_model import RewardModel
from dppo_jax.runtime.rollouts.verify import open_pool
from dppo_jax.runtime.sft.warm_start import warm_start
from dppo_jax.runtime.storage import workdir as workdir_lib
from dppo_jax.runtime.storage.checkpoints import Checkpoints

_BEFORE_THE_FIRST = (
  'Stopped before the first step; nothing is lost. Run the same command to'
  ' begin anew, or to resume what the folder holds.'
)


@dataclasses.dataclass(frozen=True)
class _Job:
  """What a run opens before it trains.

  Attributes:
    parts: of the experiment, frozen weights loaded.
    pool: the verifiers.
    checkpoints: of the run.
    queue: rollouts of later steps.
    state: that was restored; None in a new folder.
  """

  parts: parts_lib.Parts
  pool: VerifierPool
  checkpoints: Checkpoints
  queue: RolloutQueue
  state: TrainState | None


@dataclasses.dataclass(frozen=True)
class _Training:
  """What the steps of a run need.

  Attributes:
    state: that the first step starts from.
    milestones: what happens between steps.
    recorder: takes metrics.
    tracer: of the steps that are profiled.
    iterate: a train step.
  """

  state: TrainState
  milestones: Milestones
  recorder: Recorder
  tracer: Tracer
  iterate: IterateFn


def run(experiment: Experiment, workdir: pathlib.Path) -> dict[str, Any]:
  """Trains, or goes on training, in `workdir`.

  Args:
    experiment: a checked config.
    workdir: exists and is writable; holds this run or nothing.

  Returns:
    The summary that is written to summary.json.

  Raises:
    ValueError: the package of a writer is missing.
    Preempted: SIGTERM, SIGHUP or Ctrl-C; the state is saved.
    FailedVerifierError: verifiers failed on `rewards.max_failed` batches in a
      row.
    NonFiniteError: `optimizer.max_nonfinite` updates in a row were skipped.
    CheckpointError: a checkpoint could not be written or read.
  """
  writers.check_installed(experiment.writers)
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(stop_on_signals())
    with stop.may_abandon(lambda: _BEFORE_THE_FIRST):
      job = _open(experiment, workdir, stack)
      resumed = job.state is not None
      finished = _finished(experiment, workdir, job)
      if finished is not None:
        return finished
      training = _prepare(experiment, workdir, job, stop, stack)
    state, milestones = training.state, training.milestones
    recorder, tracer = training.recorder, training.tracer

    milestones.begin(state, resumed=resumed)
    start_step = int(state.step)
    for step in range(start_step + 1, experiment.num_steps + 1):
      tracer.before(step)
      with contextlib.ExitStack() as within:
        if step == start_step + 1:  # The state before it is saved.
          within.enter_context(milestones.abandonable(state))
        within.enter_context(
          activity.under_way(f'train step {step} of {experiment.num_steps}')
        )
        state, metrics, samples = training.iterate(state, recorder.flush)
      tracer.after(step)
      if step == 1:  # Records without a checkpoint are those of a lost run.
        job.checkpoints.wait()
      recorder.hold(step, metrics, samples)
      milestones.after(step, state)
    job.checkpoints.wait()
  if not coordination.is_primary():
    return {}
  with activity.under_way('summarizing the run'):
    return header.summarize(experiment, job.parts, workdir)


def _open(
  experiment: Experiment, workdir: pathlib.Path, stack: contextlib.ExitStack
) -> _Job:
  """Opens what the folder holds, and says so."""
  parts = base_weights.open_parts(experiment)
  with activity.under_way('comparing data and files with those on record'):
    inputs.settle(experiment, parts, workdir)
  pool = stack.enter_context(
    open_pool(experiment.rewards, experiment.environment.name)
  )
  checkpoints = _open_checkpoints(experiment, workdir)
  stack.enter_context(contextlib.closing(checkpoints))
  queue = RolloutQueue(experiment, parts, pool)
  state = _restore(parts, checkpoints, queue)
  resumed_step = None if state is None else int(state.step)
  if coordination.is_primary():
    print(
      header.header(experiment, parts, workdir, resumed_step),
      file=sys.stderr,
      flush=True,
    )
  if state is None:  # A run that began had them checked.
    coordination.from_primary(
      functools.partial(_tell_references, experiment, parts, pool),
      'the reference answers',
    )
  if coordination.is_primary():
    kept_files.keep(experiment, workdir)
  return _Job(parts, pool, checkpoints, queue, state)


def _finished(
  experiment: Experiment, workdir: pathlib.Path, job: _Job
) -> dict[str, Any] | None:
  """The summary of a run that has no step left; None where one is missing."""
  if job.state is None or int(job.state.step) != experiment.num_steps:
    return None
  found = coordination.from_primary(
    lambda: summary.read_summary(workdir), 'the summary'
  )
  # Of fewer steps: stopped in the last evaluation after it was prolonged.
  if found is None or found.get('steps') != experiment.num_steps:
    return None
  return found


def _prepare(
  experiment: Experiment,
  workdir: pathlib.Path,
  job: _Job,
  stop: StopRequest,
  stack: contextlib.ExitStack,
) -> _Training:
  """Compiles what can be before it runs, and makes the first state."""
  parts, state = job.parts, job.state
  resumed = state is not None
  model = None
  if experiment.rewards.model.folder:
    model = RewardModel(experiment.rewards.model, parts.mesh)
  evaluate = compile_evaluation(parts, experiment.evaluation, job.pool, model)
  if state is None:
    state = warm_start(experiment, parts, stop)
  start_step = int(state.step)
  reference = _reference_params(experiment, parts, workdir, state, resumed)
  recorder = stack.enter_context(
    Recorder(experiment, workdir, start_step, resumed=resumed)
  )
  ledger = LedgerWriter(
    workdir, experiment.ledger.every_n_steps, start_step if resumed else None
  )
  tracer = stack.enter_context(
    Tracer(workdir, experiment.profile, recorder.progress.note)
  )
  milestones = Milestones(
    experiment,
    parts,
    workdir=workdir,
    evaluate=evaluate,
    checkpoints=job.checkpoints,
    recorder=recorder,
    queue=job.queue,
    stop=stop,
    about=base_weights.metadata(parts),
  )
  iterate = compile_iteration(
    experiment, parts, job.pool, model, reference, ledger, job.queue
  )
  return _Training(state, milestones, recorder, tracer, iterate)


def _tell_references(
  experiment: Experiment, parts: parts_lib.Parts, pool: VerifierPool
) -> None:
  found = reference_check.examine(experiment, parts, pool)
  limit = experiment.data.max_unverifiable
  for told in reference_check.check(found, limit):
    print(told, file=sys.stderr, flush=True)


def _open_checkpoints(
  experiment: Experiment, workdir: pathlib.Path
) -> Checkpoints:
  config = experiment.checkpoints
  folder = workdir / workdir_lib.CHECKPOINTS
  return Checkpoints(folder, config.keep, config.best_metric)


def _restore(
  parts: parts_lib.Parts, checkpoints: Checkpoints, queue: RolloutQueue
) -> TrainState | None:
  """The latest state that is whole, or None in a new folder."""
  if checkpoints.latest_step() is None:
    return None
  like = parts.abstract_state
  saved, stored = checkpoints.restore(
    lambda step: RunState(**vars(like), queue=queue.abstract(like, step))
  )
  base_weights.check(parts, stored)
  fields = dict(vars(saved))
  queue.resume(fields.pop('queue'))
  return TrainState(**fields)


def _reference_params(
  experiment: Experiment,
  parts: parts_lib.Parts,
  workdir: pathlib.Path,
  state: TrainState,
  resumed: bool,
) -> Any:
  """Parameters of the warm start, which a KL penalty pulls toward.

  Of an adapter they are its first state, over the base that is there anyway.
  """
  if not experiment.loss.kl_coefficient:
    return None
  store = Checkpoints(workdir / 'reference', 1, '')
  with contextlib.closing(store):
    if not resumed:
      store.save(0, state, {}, {})
      store.wait()
    return store.restore(parts.abstract_state)[0].params
