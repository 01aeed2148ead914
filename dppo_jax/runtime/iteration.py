"""One iteration: collect rollouts, build the batch, update, record."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from dppo_jax.base import Array, Batch, Metrics, TrainState
from dppo_jax.learner.optimizer import learning_rate_of
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.runtime import activity
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.hosts import coordination, host_rows
from dppo_jax.runtime.ledger.files import LedgerWriter
from dppo_jax.runtime.ledger.record import make_record
from dppo_jax.runtime.programs import compiled
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.programs.compiled import compile_step
from dppo_jax.runtime.reporting.recorder import Stopwatch
from dppo_jax.runtime.rollouts import collect as collect_lib
from dppo_jax.runtime.rollouts import integrity
from dppo_jax.runtime.rollouts.ahead import RolloutQueue
from dppo_jax.runtime.rollouts.dynamic_sampling import Collected
from dppo_jax.runtime.rollouts.reward_model import RewardModel
from dppo_jax.runtime.storage.metrics_log import Sample

IterateFn = Callable[
  [TrainState, Callable[[], None]],
  tuple[TrainState, Metrics, list[Sample]],
]
# (state, what was collected) -> (batch, metrics).
_MakeBatchFn = Callable[[TrainState, Collected], tuple[Batch, Metrics]]


def compile_iteration(
  experiment: Experiment,
  parts: parts_lib.Parts,
  pool: VerifierPool,
  model: RewardModel | None,
  reference: Any,
  ledger: LedgerWriter,
  queue: RolloutQueue,
) -> IterateFn:
  """(state, meanwhile) -> (state, metrics, samples): one train step.

  `meanwhile` is called while the device works.

  Args:
    experiment: the run.
    parts: its parts.
    pool: the verifiers.
    model: adds to rewards; None adds nothing.
    reference: parameters that a KL penalty pulls toward; None without one.
    ledger: of the token records.
    queue: what samples, and holds what is sampled ahead.
  """
  collecting = (experiment, parts, pool, model, queue)
  collect = collect_lib.compile_collection(*collecting)
  build_batch = _compile_batch(experiment, parts, reference)
  copy_head = compiled.compile_anchor_head(parts)
  exact = parts_lib.keeps_hidden(experiment)
  step_fn = compile_step(experiment, parts, recording=ledger.every_n_steps > 0)
  write_record = functools.partial(_write_record, experiment, parts, ledger)
  rate = jax.jit(functools.partial(learning_rate_of, experiment.optimizer))

  def iterate(
    state: TrainState, meanwhile: Callable[[], None]
  ) -> tuple[TrainState, Metrics, list[Sample]]:
    clock = Stopwatch()
    step = int(state.step)
    collected, anchor_head = collect(state, clock)
    checked = queue.integrity.settle()
    batch, metrics = build_batch(state, collected)
    if checked:
      metrics |= checked | integrity.count_fields(experiment, batch)
    metrics['optimizer/learning_rate'] = rate(state.opt_state)
    metrics['rollout/lag'] = jnp.float32(queue.lag_of(step))
    metrics['weight_sync/bytes'] = jnp.float32(queue.num_bytes)
    if exact and anchor_head is None:  # The anchor is recomputed.
      anchor_head = copy_head(state.params)
    outcome = step_fn(state, batch, anchor_head)
    state, step_metrics = outcome[:2]
    meanwhile()  # The device is busy: write the metrics of the step before.
    with activity.under_way('updating'):
      jax.block_until_ready(state.step)
    clock.lap('training')
    if ledger.due(step + 1):
      write_record(step + 1, collected, batch, outcome[2])
      clock.lap('ledger')
    timed = clock.metrics(
      sampled=collected.num_tokens,
      trained=_num_trained(collected),
      ahead=experiment.sampling.lag > 0,
    )
    metrics = {**metrics, **step_metrics, **collected.drawn.metrics, **timed}
    return state, metrics, _samples(parts, collected)

  return iterate


def _compile_batch(
  experiment: Experiment, parts: parts_lib.Parts, reference: Any
) -> _MakeBatchFn:
  """(state, what was collected) -> (batch, metrics of it).

  Args:
    experiment: the run.
    parts: its parts.
    reference: parameters that a KL penalty pulls toward; None without one.
  """
  batcher = compiled.compile_batcher(parts, experiment)
  scorer = compiled.compile_scorer(parts, experiment)
  recompute = experiment.loss.anchor == 'recomputed'
  dynamic = experiment.data.dynamic_sampling != 'off'
  keep_groups = compiled.compile_group_choice(parts, experiment)

  def build(state: TrainState, collected: Collected) -> tuple[Batch, Metrics]:
    rollout = collected.drawn.rollout
    recomputed = scorer(state.params, rollout) if recompute else None
    pulled = None
    if reference is not None:  # Its own routers are a part of it.
      unrouted = dataclasses.replace(rollout, routes=None)
      pulled = scorer(reference, unrouted)
    rewards: Array = jnp.asarray(
      host_rows.put(parts.batch_sharding, collected.drawn.rewards())
    )
    batch, metrics = batcher(rollout, rewards, recomputed, pulled)
    metrics['rollout/useful_decode_share'] = jnp.float32(
      collected.useful_decode_share
    )
    if dynamic:
      batch = keep_groups(batch, jnp.asarray(collected.varied))
      metrics['rewards/sampled_mean'] = jnp.float32(collected.reward_mean)
      metrics['rollout/batches'] = jnp.float32(collected.num_attempts)
    return batch, metrics

  return build


def _num_trained(collected: Collected) -> int:
  """Tokens of the batch, prompts included; a collective."""
  return int(host_rows.total(collected.drawn.on_host.token_mask.sum()))


def _samples(parts: parts_lib.Parts, collected: Collected) -> list[Sample]:
  """The completions of a step, with prompts and verdicts."""
  drawn = collected.drawn
  examples = parts.prompts.examples(drawn.on_host.example_id)
  return [
    Sample(str(example['prompt']), text, verdict.reward, verdict.reason)
    for example, text, verdict in zip(
      examples, drawn.completions, drawn.verdicts, strict=True
    )
  ]


def _write_record(
  experiment: Experiment,
  parts: parts_lib.Parts,
  ledger: LedgerWriter,
  step: int,
  collected: Collected,
  batch: Batch,
  record: Any,
) -> None:
  """Writes what the ledger keeps of a step.

  Args:
    experiment: the run.
    parts: its parts.
    ledger: takes the record.
    step: train steps taken, this one included.
    collected: the groups that it trained on.
    batch: the same as the loss read it.
    record: the StepRecord of the train step.
  """
  used, recorded = host_rows.fetch((batch, record))
  on_host = collected.drawn.on_host
  if not coordination.is_single_process():
    on_host = host_rows.fetch(collected.drawn.rollout)
  region = experiment.resolved['trust_region']
  samples = _samples(parts, collected)
  ledger.write(
    make_record(step, region, parts.tokenizer, on_host, used, recorded, samples)
  )
