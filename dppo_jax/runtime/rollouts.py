"""What a train step learns from: prompts sampled, ended, verified, chosen."""

from collections.abc import Callable
import dataclasses
import functools

import jax

from dppo_jax.base import Rollout, Stream, TrainState, stream_key
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.runtime import (
  assembly,
  dynamic_sampling,
  host_rows,
  stopping,
)
from dppo_jax.runtime.config import Experiment
from dppo_jax.runtime.recorder import Stopwatch, due
from dppo_jax.runtime.reward_model import RewardModel
from dppo_jax.runtime.rewarding import reward

# (state, clock) -> the groups of the state's step.
CollectFn = Callable[[TrainState, Stopwatch], dynamic_sampling.Collected]


def compile_collection(
  experiment: Experiment,
  parts: assembly.Parts,
  pool: VerifierPool,
  model: RewardModel | None = None,
) -> CollectFn:
  """Returns the sampling half of a train step.

  What it returns is a function of (parameters, seed, step): keys and prompts
  of every attempt are.
  """
  data = experiment.data
  width, stop_strings = data.max_prompt_length, experiment.stop_strings
  sampler = assembly.compile_sampler(parts, experiment.sampling)
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
    state: TrainState, clock: Stopwatch, attempt: int
  ) -> dynamic_sampling.Drawn:
    step = int(state.step)
    prompts = host_rows.put_rows(
      parts.batch_sharding,
      functools.partial(parts.prompts.prompts, step, attempt),
      data.num_prompts,
    )
    key = stream_key(state.key, Stream.SAMPLE, step)
    if attempt:
      key = stream_key(state.key, Stream.RESAMPLE, step)
      key = jax.random.fold_in(key, attempt)
    rollout = sampler(state.params, prompts, key)
    on_host = _on_host(parts, rollout)
    if cut is not None:
      rollout = cut(rollout, on_host)
      on_host = _on_host(parts, rollout)
    clock.lap('sampling')
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
      num_texts(step),
    )
    clock.lap('verification')
    return dynamic_sampling.Drawn(rollout, on_host, *rewarded)

  def collect(
    state: TrainState, clock: Stopwatch
  ) -> dynamic_sampling.Collected:
    return dynamic_sampling.collect(
      functools.partial(draw, state, clock),
      merge,
      data.group_size,
      max_attempts,
    )

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
