"""What a train step learns from: prompts sampled, ended, verified, chosen."""

from collections.abc import Callable
import dataclasses
import functools

import jax

from dppo_jax.base import Rollout, Stream, TrainState, stream_key
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.runtime import assembly, dynamic_sampling, stopping
from dppo_jax.runtime.config import Experiment
from dppo_jax.runtime.recorder import Stopwatch
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

  def draw(
    state: TrainState, clock: Stopwatch, attempt: int
  ) -> dynamic_sampling.Drawn:
    step = int(state.step)
    prompts = parts.prompts.prompts(step, attempt)
    key = stream_key(state.key, Stream.SAMPLE, step)
    if attempt:
      key = stream_key(state.key, Stream.RESAMPLE, step)
      key = jax.random.fold_in(key, attempt)
    rollout = sampler(state.params, prompts, key)
    on_host = _on_host(rollout)
    if cut is not None:
      rollout = cut(rollout, on_host)
      on_host = _on_host(rollout)
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


def _on_host(rollout: Rollout) -> Rollout:
  """What the host reads of a rollout."""
  stats = dataclasses.replace(
    rollout.rollout,
    top_ids=None,
    top_log_probs=None,
    entropy=None,
    hidden=None,
  )
  return jax.device_get(
    dataclasses.replace(rollout, rollout=stats, routes=None)
  )
