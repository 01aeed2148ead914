"""What a train step learns from: prompts sampled, ended, verified, chosen."""

from collections.abc import Callable
import dataclasses
import functools

import jax

from dppo_jax.base import Array, Rollout, TrainState
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.hosts import host_rows
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.reporting.recorder import Stopwatch, due
from dppo_jax.runtime.rollouts import dynamic_sampling
from dppo_jax.runtime.rollouts import stop_strings as stop_strings_lib
from dppo_jax.runtime.rollouts.ahead import PendingRollout, RolloutQueue
from dppo_jax.runtime.rollouts.reward import reward
from dppo_jax.runtime.rollouts.reward_model import RewardModel

# (state, clock) -> the groups of the state's step, and the head that they were
# sampled with where the trainer reads it.
CollectFn = Callable[
  [TrainState, Stopwatch], tuple[dynamic_sampling.Collected, Array | None]
]


def compile_collection(
  experiment: Experiment,
  parts: parts_lib.Parts,
  pool: VerifierPool,
  model: RewardModel | None = None,
  queue: RolloutQueue | None = None,
) -> CollectFn:
  """Returns the sampling half of a train step.

  What it returns is a function of (parameters, seed, step): keys and prompts
  of every attempt are.

  Args:
    experiment: the run.
    parts: its parts.
    pool: the verifiers.
    model: adds to rewards.
    queue: what samples, and holds what is sampled ahead; None makes one.
  """
  ahead = RolloutQueue(experiment, parts) if queue is None else queue
  data = experiment.data
  width, stop_strings = data.max_prompt_length, experiment.stop_strings
  cut = stop_strings_lib.compile_cut(
    parts, stop_strings, width, experiment.sampling.pad_id
  )
  merge = jax.jit(dynamic_sampling.merge, out_shardings=parts.batch_sharding)
  resampling = data.dynamic_sampling == 'resample'
  max_attempts = 1 + data.max_resampling if resampling else 1
  num_rows = data.num_prompts * data.group_size
  own = host_rows.own_rows(parts.batch_sharding, num_rows)

  def num_texts(step: int) -> int:
    """How many completions somebody reads on other hosts than their own."""
    writers = experiment.writers
    if model is not None or resampling:
      return num_rows
    if due(step + 1, experiment.ledger.every_n_steps):
      return num_rows
    written = writers.num_samples and due(
      step + 1, writers.samples_every_n_steps
    )
    return num_rows if written else 0

  def draw(
    state: TrainState,
    clock: Stopwatch,
    pending_rollout: PendingRollout,
    attempt: int,
  ) -> dynamic_sampling.Drawn:
    rollout = pending_rollout.rollout
    if attempt:
      rollout = ahead.again(pending_rollout, state, attempt)
    on_host = _on_host(parts, rollout)
    if cut is not None:
      rollout = cut(rollout, on_host)
      on_host = _on_host(parts, rollout)
    clock.lap('sampling')
    # After the copy: host collectives queue behind device work.
    ahead.fill(state)
    rewarded = reward(
      parts.tokenizer,
      parts.prompts,
      pool,
      on_host,
      width,
      data.group_size,
      experiment.shaping,
      stop_strings,
      model,
      own,
      num_texts(int(state.step)),
      experiment.truncated,
    )
    clock.lap('verification')
    ahead.wait()
    clock.lap('sampling')
    return dynamic_sampling.Drawn(rollout, on_host, *rewarded)

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


def _on_host(parts: parts_lib.Parts, rollout: Rollout) -> Rollout:
  """What the host reads of a rollout."""
  stats = dataclasses.replace(
    rollout.stats,
    top_ids=None,
    top_log_probs=None,
    entropy=None,
    hidden=None,
  )
  return host_rows.read(
    parts.batch_sharding,
    dataclasses.replace(rollout, stats=stats, routes=None),
  )
