"""Rollouts of a train step: sampled, truncated at stops, verified, chosen."""

from collections.abc import Callable
import dataclasses
import functools

import jax

from dppo_jax.base import Array, Rollout, TrainState
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.runtime import activity
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.hosts import host_rows
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.reporting.recorder import Stopwatch, due
from dppo_jax.runtime.rollouts import dynamic_sampling
from dppo_jax.runtime.rollouts import stop_strings as stop_strings_lib
from dppo_jax.runtime.rollouts.ahead import PendingRollout, RolloutQueue
from dppo_jax.runtime.rollouts.reward import reward
from dppo_jax.runtime.rollouts.reward_model import RewardModel
from dppo_jax.runtime.rollouts.verify import CompletionVerifier

# (state, clock) -> the groups of the state's step, and the head that they were
# sampled with where the trainer reads it.
CollectFn = Callable[
  [TrainState, Stopwatch], tuple[dynamic_sampling.Collected, Array | None]
]
_DrawFn = Callable[
  [TrainState, Stopwatch, PendingRollout, int], dynamic_sampling.Drawn
]


def compile_collection(
  experiment: Experiment,
  parts: parts_lib.Parts,
  pool: VerifierPool,
  model: RewardModel | None = None,
  queue: RolloutQueue | None = None,
) -> CollectFn:
  """The sampling half of a train step, compiled.

  Its rollouts depend on (parameters, seed, step) alone: keys and prompts of
  every attempt do.

  Args:
    experiment: the run.
    parts: its parts.
    pool: the verifiers.
    model: adds to rewards.
    queue: what samples, and holds what is sampled ahead; None makes one.
  """
  ahead = RolloutQueue(experiment, parts, pool) if queue is None else queue
  data = experiment.data
  draw = _compile_draw(experiment, parts, pool, model, ahead)
  merge = jax.jit(dynamic_sampling.merge, out_shardings=parts.batch_sharding)
  resampling = data.dynamic_sampling == 'resample'
  max_attempts = 1 + data.max_resampling if resampling else 1

  def collect(
    state: TrainState, clock: Stopwatch
  ) -> tuple[dynamic_sampling.Collected, Array | None]:
    ahead.begin(state, clock)
    pending_rollout = ahead.take(state)
    collected = dynamic_sampling.collect(
      functools.partial(draw, state, clock, pending_rollout),
      merge,
      data.group_size,
      max_attempts,
    )
    return collected, pending_rollout.head

  return collect


def _compile_draw(
  experiment: Experiment,
  parts: parts_lib.Parts,
  pool: VerifierPool,
  model: RewardModel | None,
  ahead: RolloutQueue,
) -> _DrawFn:
  """(state, clock, rollout under way, attempt) -> a batch with rewards."""
  data = experiment.data
  width, stop_strings = data.max_prompt_length, experiment.sampling.stop_strings
  cut = stop_strings_lib.compile_cut(
    parts, stop_strings, width, experiment.sampling.pad_id
  )
  num_rows = data.num_prompts * data.group_size
  own = host_rows.own_rows(parts.batch_sharding, num_rows)
  verifier = CompletionVerifier(
    tokenizer=parts.tokenizer,
    stream=parts.prompts,
    pool=pool,
    prompt_length=width,
    stop_strings=stop_strings,
    truncated=experiment.rewards.truncated,
  )

  def draw(
    state: TrainState,
    clock: Stopwatch,
    pending_rollout: PendingRollout,
    attempt: int,
  ) -> dynamic_sampling.Drawn:
    rollout = pending_rollout.rollout
    if attempt:
      rollout = ahead.again(pending_rollout, state, attempt)
    with activity.under_way('sampling'):
      on_host = _on_host(parts, rollout)
      if cut is not None:
        rollout = cut(rollout, on_host)
        on_host = _on_host(parts, rollout)
    clock.lap('sampling')
    # After the copy: host collectives queue behind device work.
    ahead.fill(state)
    is_read = _are_texts_read(experiment, model, int(state.step))
    rewarded = reward(
      verifier,
      on_host,
      data.group_size,
      experiment.rewards.shaping,
      model,
      own,
      num_rows if is_read else 0,
    )
    clock.lap('verification')
    ahead.wait()
    clock.lap('sampling')
    return dynamic_sampling.Drawn(rollout, on_host, *rewarded)

  return draw


def _are_texts_read(
  experiment: Experiment, model: RewardModel | None, step: int
) -> bool:
  """Whether somebody reads completions on other hosts than their own."""
  writers = experiment.writers
  written = writers.num_samples and due(step + 1, writers.samples_every_n_steps)
  return bool(
    model is not None
    or experiment.data.dynamic_sampling == 'resample'
    or due(step + 1, experiment.ledger.every_n_steps)
    or written
  )


def _on_host(parts: parts_lib.Parts, rollout: Rollout) -> Rollout:
  """The fields of a rollout that the host reads."""
  stats = dataclasses.replace(
    rollout.stats,
    top_ids=None,
    top_log_probs=None,
    entropy=None,
    hidden=None,
    support=None,
  )
  return host_rows.read(
    parts.batch_sharding,
    dataclasses.replace(rollout, stats=stats, routes=None),
  )
