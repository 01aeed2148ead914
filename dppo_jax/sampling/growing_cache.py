"""Sampling in stages, between which the KV cache grows.

A cache as wide as the limit costs the memory of completions that seldom come.
Here its width doubles once a row has filled it. Shapes are compiled, so each
width is a program of its own, and what is on the host between them asks whether
any row goes on. Narrower caches are whole blocks of what a decode step reads at
once, so that a step computes the same whatever the width: tokens are equal bit
for bit.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dppo_jax import parallel
from dppo_jax.base import Array, Params, Prompts, Rollout
from dppo_jax.models.attention import dispatch
from dppo_jax.models.policy import Policy
from dppo_jax.parallel import VocabularyAxes
from dppo_jax.sampling import continuous, decode
from dppo_jax.sampling.decode import SamplingConfig
from dppo_jax.sampling.slot_plan import plan_for

# `decode.DecodeState` or `continuous.SlotState`.
State = Any

_COLUMNS = -2  # Axis of keys and values.


class Stages(NamedTuple):
  """Pure functions of which a sampler consists.

  Attributes:
    start: (params, prompts, key, columns of completions in the cache) -> state.
    run: (params, prompts, key, state) -> state after all tokens, or after as
      many as its cache has room for.
    unfinished: state -> bool [], whether tokens are missing.
    finish: (prompts, state) -> the rollout.
  """

  start: Callable[[Params, Prompts, Array, int], State]
  run: Callable[[Params, Prompts, Array, State], State]
  unfinished: Callable[[Prompts, State], Array]
  finish: Callable[[Prompts, State], Rollout]


def stages(
  policy: Policy, axes: VocabularyAxes, config: SamplingConfig
) -> Stages:
  """Stages of `continuous.sample`.

  Args:
    policy: the model.
    axes: mesh axes of the batch and of the vocabulary.
    config: sampling settings.
  """
  slots_of = functools.partial(
    plan_for, config, shards=parallel.num_batch_shards(axes.mesh)
  )

  def start(
    params: Params, prompts: Prompts, key: Array, num_columns: int
  ) -> State:
    plan = slots_of(num_prompts=len(prompts.tokens))
    if plan is None:
      return decode.start(
        policy, axes, config, params, prompts, key, num_columns
      )
    return continuous.SlotSampler.of(
      policy, axes, config, plan, params, prompts, key
    ).start(num_columns)

  def run(params: Params, prompts: Prompts, key: Array, state: State) -> State:
    plan = slots_of(num_prompts=len(prompts.tokens))
    columns = jax.tree.leaves(state.cache.completion)[0].shape[_COLUMNS]
    if plan is None:
      return decode.run(policy, axes, config, params, key, state, columns)
    return continuous.SlotSampler.of(
      policy, axes, config, plan, params, prompts, key
    ).run(state, columns, resumed=True)

  def unfinished(prompts: Prompts, state: State) -> Array:
    plan = slots_of(num_prompts=len(prompts.tokens))
    if plan is None:
      return decode.unfinished(config, state)
    return continuous.unfinished(plan, state)

  def finish(prompts: Prompts, state: State) -> Rollout:
    plan = slots_of(num_prompts=len(prompts.tokens))
    end = decode.finish if plan is None else continuous.finish
    return end(config, prompts, state)

  return Stages(start, run, unfinished, finish)


def widths(first: int, limit: int, platform: str) -> tuple[int, ...]:
  """Columns of the cache from stage to stage, the last of them the limit.

  Args:
    first: columns wanted at first; 0 for the limit.
    limit: R.
    platform: of the devices, whose blocks the first is rounded up to; of two at
      least, for a single one is read in another way.

  >>> widths(300, 2000, 'cpu'), widths(0, 2000, 'cpu'), widths(9, 200, 'cpu')
  ((384, 768, 1536, 2000), (2000,), (200,))
  """
  if not first:
    return (limit,)
  block = dispatch.decode_keys(platform)
  columns = max(2, -(-first // block)) * block
  found = []
  while columns < limit:
    found.append(columns)
    columns *= 2
  return (*found, limit)


def grow(state: State, num_columns: int) -> State:
  """The state with a cache of so many columns; the one passed in is consumed.

  Array by array, so that one of them at most is there twice.
  """
  pad = _pad_to(num_columns)
  leaves, tree = jax.tree.flatten(state.cache.completion)
  for i, leaf in enumerate(leaves):
    leaves[i] = pad(leaf)
    leaf.delete()
  completion = jax.tree.unflatten(tree, leaves)
  cache = dataclasses.replace(state.cache, completion=completion)
  return dataclasses.replace(state, cache=cache)


@functools.cache
def _pad_to(num_columns: int) -> Callable[[Array], Array]:
  def pad(x: Array) -> Array:
    more = [(0, 0)] * x.ndim
    more[_COLUMNS] = (0, num_columns - x.shape[_COLUMNS])
    return jnp.pad(x, more)

  return jax.jit(pad)
