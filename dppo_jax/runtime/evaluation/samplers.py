"""Samplers of an evaluation: of k completions a prompt, and of the likeliest.

Where each draws one completion of a prompt they are one program, which is told
by an argument what to draw: tracing and compiling it is most of the time of a
small evaluation.
"""

import dataclasses
import functools

import jax
import numpy as np

from dppo_jax import parallel
from dppo_jax.base import Array, Params, Prompts, Rollout
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.runtime.config.experiment import EvaluationConfig
from dppo_jax.runtime.programs.compiled import (
  Program,
  SampleFn,
  compile_sampler,
  vocabulary_axes,
)
from dppo_jax.runtime.programs.parts import ModelParts, Parts, complete
from dppo_jax.runtime.rollouts.conversations import ConversationSampler
from dppo_jax.sampling import continuous
from dppo_jax.sampling.decode import SamplingConfig


def compile_samplers(
  parts: Parts, config: EvaluationConfig, pool: VerifierPool
) -> tuple[SampleFn, SampleFn | None]:
  """The samplers of `config.sampled` and of `config.greedy`, None without it.

  Args:
    parts: of the run; `held_out` is what conversations are about.
    config: of the evaluation.
    pool: the environment, where one answers between turns.
  """
  sampled, greedy = config.sampled, config.greedy
  if greedy is not None and _differ_in_the_token_alone(config, greedy):
    either = _compile_either(parts, sampled)
    return (
      functools.partial(either, np.False_),
      functools.partial(either, np.True_),
    )

  def compile_for(sampling: SamplingConfig) -> SampleFn:
    if not config.environment.name:
      return compile_sampler(parts, sampling)
    return ConversationSampler(
      parts,
      parts.held_out,
      sampling,
      config.environment,
      pool,
      config.truncated,
    )

  return compile_for(sampled), None if greedy is None else compile_for(greedy)


def _differ_in_the_token_alone(
  config: EvaluationConfig, greedy: SamplingConfig
) -> bool:
  """Whether one program can do both, in one piece."""
  sampled = config.sampled
  alike = dataclasses.replace(greedy, greedy=False, top_p=sampled.top_p)
  staged = bool(config.environment.name or sampled.cache_columns)
  return alike == sampled and not staged


def _compile_either(
  parts: ModelParts, config: SamplingConfig
) -> Program[Rollout]:
  """(whether to draw the likeliest, params, prompts, key) -> Rollout."""
  axes = vocabulary_axes(parts.mesh)
  everywhere = parallel.replicated(parts.mesh)

  def sample(
    base: Params | None,
    greedy: Array,
    params: Params,
    prompts: Prompts,
    key: Array,
  ) -> Rollout:
    params = complete(parts, base, params)
    told = dataclasses.replace(config, greedy=greedy)
    return continuous.sample(parts.policy, axes, told, params, prompts, key)

  compiled = jax.jit(
    sample,
    in_shardings=(
      None,  # Where it is.
      everywhere,
      parts.shardings.params,
      parts.batch_sharding,
      everywhere,
    ),
    out_shardings=parts.batch_sharding,
  )
  return Program(compiled, parts.base)
