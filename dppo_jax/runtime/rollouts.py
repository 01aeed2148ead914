"""What a train step learns from: prompts sampled, ended, verified, chosen."""

from collections.abc import Callable
import dataclasses
import functools

import jax

from dppo_jax.base import Array, Rollout, TrainState
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.runtime import (
  assembly,
  dynamic_sampling,
  host_rows,
  stopping,
)
from dppo_jax.runtime.config import Experiment
from dppo_jax.runtime.in_flight import Flight, InFlight
from dppo_jax.runtime.recorder import Stopwatch, due
from dppo_jax.runtime.reward_model import RewardModel
from dppo_jax.runtime.rewarding import reward

# (state, clock) -> the groups of the state's step, and the head that they were
# sampled with where the trainer reads it.
CollectFn = Callable[
  [TrainState, Stopwatch], tuple[dynamic_sampling.Collected, Array | None]
]


def compile_collection(
  experiment: Experiment,
  parts: assembly.Parts,
  pool: VerifierPool,
  model: RewardModel | None = None,
  in_flight: InFlight | None = None,
) -> CollectFn:
  """Returns the sampling half of a train step.

  What it returns is a function of (parameters, seed, step): keys and prompts
  of every attempt are.

  Args:
    experiment: the run.
    parts: its parts.
    pool: the verifiers.
    model: adds to rewards.
    in_flight: what samples, and holds what is sampled ahead; None makes one.
  """
  ahead = InFlight(experiment, parts) if in_flight is None else in_flight
  data = experiment.data
  width, stop_strings = data.max_prompt_length, experiment.stop_strings
  cut = stopping.compile_cut(
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
    return writers.num_samples * due(step + 1, writers.samples_every_n_steps)

  def draw(
    state: TrainState, clock: Stopwatch, flight: Flight, attempt: int
  ) -> dynamic_sampling.Drawn:
    rollout = flight.rollout
    if attempt:
      rollout = ahead.again(flight, state, attempt)
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
    )
    clock.lap('verification')
    ahead.wait()
    clock.lap('sampling')
    return dynamic_sampling.Drawn(rollout, on_host, *rewarded)

  def collect(
    state: TrainState, clock: Stopwatch
  ) -> tuple[dynamic_sampling.Collected, Array | None]:
    ahead.begin(state, clock)
    flight = ahead.take(state)
    collected = dynamic_sampling.collect(
      functools.partial(draw, state, clock, flight),
      merge,
      data.group_size,
      max_attempts,
    )
    return collected, flight.head

  return collect


def _on_host(parts: assembly.Parts, rollout: Rollout) -> Rollout:
  """What the host reads of a rollout."""
  stats = dataclasses.replace(
    rollout.rollout,
    top_ids=None,
    top_log_probs=None,
    entropy=None,
    hidden=None,
  )
  return host_rows.read(
    parts.batch_sharding,
    dataclasses.replace(rollout, rollout=stats, routes=None),
  )
