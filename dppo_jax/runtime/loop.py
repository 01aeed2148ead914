"""The loop: sample, verify, update; evaluate, save, report.

A step is a function of the state and its number: prompts, keys and shuffles
derive from (seed, step). So a run that is killed and started again continues
bit for bit from its last checkpoint.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import functools
import pathlib
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp

from dppo_jax.base import Metrics, TrainState
from dppo_jax.learner.optimizer import learning_rate_of
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.evaluation.evaluate import compile_evaluation
from dppo_jax.runtime.evaluation.results import write_results
from dppo_jax.runtime.hosts import coordination, host_rows
from dppo_jax.runtime.hosts.preemption import stop_on_signals
from dppo_jax.runtime.ledger.files import LedgerWriter
from dppo_jax.runtime.ledger.record import make_record
from dppo_jax.runtime.programs import base_weights, compiled, inputs, kept_files
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.programs import state as state_lib
from dppo_jax.runtime.programs.compiled import compile_step
from dppo_jax.runtime.reporting import header, summary, writers
from dppo_jax.runtime.reporting.recorder import Recorder, Stopwatch, Tracer, due
from dppo_jax.runtime.rollouts import collect as collect_lib
from dppo_jax.runtime.rollouts import reference_check
from dppo_jax.runtime.rollouts.ahead import RolloutQueue, RunState
from dppo_jax.runtime.rollouts.reward_model import RewardModel
from dppo_jax.runtime.rollouts.verify import open_pool
from dppo_jax.runtime.sft.warm_start import warm_start
from dppo_jax.runtime.storage import workdir as workdir_lib
from dppo_jax.runtime.storage.checkpoints import Checkpoints
from dppo_jax.runtime.storage.metrics_log import Sample

IterateFn = Callable[
  [TrainState, Callable[[], None]],
  tuple[TrainState, Metrics, list[Sample]],
]


def run(experiment: Experiment, workdir: pathlib.Path) -> dict[str, Any]:
  """Trains, or goes on training, in `workdir`.

  Args:
    experiment: a checked config.
    workdir: exists and is writable; holds this run or nothing.

  Returns:
    The summary that is written to summary.json.

  Raises:
    ValueError: the package of a writer is missing.
    Preempted: SIGTERM or Ctrl-C; the state is saved.
    FailedVerifierError: verifiers failed on `rewards.max_failed` batches in a
      row.
    NonFiniteError: `optimizer.max_nonfinite` updates in a row were skipped.
    CheckpointError: a checkpoint could not be written or read.
  """
  writers.check_installed(experiment.writers)
  parts = base_weights.open_parts(experiment)
  inputs.settle(experiment, parts, workdir)
  schedule = experiment.evaluation
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(stop_on_signals())
    pool = stack.enter_context(open_pool(experiment.rewards))
    checkpoints = _open_checkpoints(experiment, workdir)
    stack.enter_context(contextlib.closing(checkpoints))

    about = base_weights.metadata(parts)
    queue = RolloutQueue(experiment, parts)
    state = _restore(parts, checkpoints, queue)
    resumed = state is not None
    resumed_step = int(state.step) if resumed else None
    if coordination.is_primary():
      print(
        header.header(experiment, parts, workdir, resumed_step),
        file=sys.stderr,
        flush=True,
      )
    if not resumed:  # A run that began had them checked.
      coordination.from_primary(
        functools.partial(_tell_references, experiment, parts, pool),
        'the reference answers',
      )
    if coordination.is_primary():
      kept_files.keep(experiment, workdir)
    if resumed_step == experiment.num_steps:
      finished = coordination.from_primary(
        lambda: summary.read_summary(workdir), 'the summary'
      )
      if finished is not None:
        return finished
    model = None
    if experiment.rewards.model.folder:
      model = RewardModel(experiment.rewards.model, parts.mesh)
    evaluate = compile_evaluation(parts, schedule, pool, model)
    if state is None:
      state = warm_start(experiment, parts, stop)
    start_step = int(state.step)
    reference = _reference_params(experiment, parts, workdir, state, resumed)
    recorder = stack.enter_context(
      Recorder(experiment, workdir, start_step, resumed=resumed)
    )
    ledger = LedgerWriter(
      workdir,
      experiment.ledger.every_n_steps,
      start_step if resumed else None,
    )
    tracer = stack.enter_context(
      Tracer(workdir, experiment.profile, recorder.progress.note)
    )
    if not resumed:
      found = evaluate(state, schedule.final_num_prompts)
      metrics = found.metrics
      recorder.evaluation(0, metrics)
      recorder.warn_of_failures(found.sampled.verdicts, 'held-out')
      if coordination.is_primary():
        write_results(workdir, 0, schedule, parts.held_out, found)
      checkpoints.save(0, state, metrics, about)

    iterate = _compile_iteration(
      experiment, parts, pool, model, reference, ledger, queue
    )
    for step in range(start_step + 1, experiment.num_steps + 1):
      tracer.before(step)
      state, metrics, samples = iterate(state, recorder.flush)
      tracer.after(step)
      if step == 1:  # Records without a checkpoint are those of a lost run.
        checkpoints.wait()
      recorder.hold(step, metrics, samples)

      last = step == experiment.num_steps
      evaluated: dict[str, float] = {}
      if last or due(step, schedule.every_n_steps):
        size = schedule.final_num_prompts if last else schedule.num_prompts
        found = evaluate(state, size)
        evaluated = found.metrics
        recorder.evaluation(step, evaluated)
        recorder.warn_of_failures(found.sampled.verdicts, 'held-out')
        if coordination.is_primary():
          write_results(workdir, step, schedule, parts.held_out, found)
      stopping = stop.agreed()  # Once: a signal may come between two looks.
      if last or stopping or due(step, experiment.checkpoints.every_n_steps):
        recorder.flush()
        begin = time.perf_counter()
        checkpoints.save(
          step,
          RunState(**vars(state), queue=queue.pending()),
          evaluated,
          about,
        )
        lost_s = time.perf_counter() - begin
        recorder.progress.note(
          f'step {step}: checkpoint, {lost_s:.2f} s of training lost'
        )
      if stopping and not last:
        checkpoints.wait()
        raise stop.stop(
          f'Stopped after step {step} of {experiment.num_steps}; the state is'
          ' saved. Run the same command to resume.'
        )
    checkpoints.wait()
  if not coordination.is_primary():
    return {}
  return header.summarize(experiment, parts, workdir)


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


def _compile_iteration(
  experiment: Experiment,
  parts: parts_lib.Parts,
  pool: VerifierPool,
  model: RewardModel | None,
  reference: Any,
  ledger: LedgerWriter,
  queue: RolloutQueue,
) -> IterateFn:
  """Returns (state, meanwhile) -> (state, metrics, samples): one train step.

  `meanwhile` is called while the device works.
  """
  collect = collect_lib.compile_collection(
    experiment, parts, pool, model, queue
  )
  batcher = compiled.compile_batcher(parts, experiment)
  scorer = compiled.compile_scorer(parts, experiment)
  copy_head = compiled.compile_anchor_head(parts)
  exact = parts_lib.keeps_hidden(experiment)
  step_fn = compile_step(experiment, parts, recording=ledger.every_n_steps > 0)
  rate = jax.jit(functools.partial(learning_rate_of, experiment.optimizer))
  recompute = experiment.loss.anchor == 'recomputed'
  dynamic = experiment.data.dynamic_sampling != 'off'
  keep_groups = compiled.compile_group_choice(parts, experiment)

  def iterate(
    state: TrainState, meanwhile: Callable[[], None]
  ) -> tuple[TrainState, Metrics, list[Sample]]:
    clock = Stopwatch()
    step = int(state.step)
    collected, anchor_head = collect(state, clock)
    rollout, on_host, completions, verdicts, earned = collected.drawn
    rewards = collected.drawn.rewards()
    recomputed = scorer(state.params, rollout) if recompute else None
    pulled = None
    if reference is not None:  # Its own routers are a part of it.
      unrouted = dataclasses.replace(rollout, routes=None)
      pulled = scorer(reference, unrouted)
    rewards = host_rows.put(parts.batch_sharding, rewards)
    batch, metrics = batcher(rollout, jnp.asarray(rewards), recomputed, pulled)
    metrics['rollout/useful_decode_share'] = jnp.float32(
      collected.useful_decode_share
    )
    if dynamic:
      batch = keep_groups(batch, jnp.asarray(collected.varied))
      metrics['rewards/sampled_mean'] = jnp.float32(collected.reward_mean)
      metrics['rollout/batches'] = jnp.float32(collected.num_attempts)
    metrics['optimizer/learning_rate'] = rate(state.opt_state)
    metrics['rollout/lag'] = jnp.float32(queue.lag_of(step))
    metrics['weight_sync/bytes'] = jnp.float32(queue.num_bytes)
    if exact and anchor_head is None:  # The anchor is recomputed.
      anchor_head = copy_head(state.params)
    outcome = step_fn(state, batch, anchor_head)
    state, step_metrics = outcome[:2]
    meanwhile()  # The device is busy: write the metrics of the step before.
    jax.block_until_ready(state.step)
    clock.lap('training')
    examples = parts.prompts.examples(on_host.example_id)
    rows = [
      Sample(str(example['prompt']), text, verdict.reward, verdict.reason)
      for example, text, verdict in zip(
        examples, completions, verdicts, strict=True
      )
    ]
    if ledger.due(step + 1):
      used, recorded = host_rows.fetch((batch, outcome[2]))
      if not coordination.is_single_process():
        on_host = host_rows.fetch(rollout)
      region = experiment.resolved['trust_region']
      ledger.write(
        make_record(
          step + 1, region, parts.tokenizer, on_host, used, recorded, rows
        )
      )
      clock.lap('ledger')
    metrics = {
      **metrics,
      **step_metrics,
      **earned,
      **clock.metrics(
        sampled=collected.num_tokens,
        trained=int(host_rows.total(on_host.token_mask.sum())),
        ahead=experiment.sampling.lag > 0,
      ),
    }
    return state, metrics, rows

  return iterate


def _restore(
  parts: parts_lib.Parts, checkpoints: Checkpoints, queue: RolloutQueue
) -> TrainState | None:
  """The latest state that is whole, or None in a new folder."""
  if checkpoints.latest_step() is None:
    return None
  like = state_lib.abstract_state(parts)
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
    return store.restore(state_lib.abstract_state(parts))[0].params
