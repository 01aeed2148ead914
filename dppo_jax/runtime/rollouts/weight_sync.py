"""Weight sync: parameters cast and resharded on the devices for the sampler.

One program does both. Nothing leaves the devices, and where neither
precision nor layout differ the sampler reads the parameters themselves.
"""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from dppo_jax.base import Params
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.programs import state
from dppo_jax.sampling import weight_rounding
from dppo_jax.sampling.decode import SamplingConfig

_GATHERED = 'fsdp'


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightSync:
  """The compiled weight sync: parameters to the sampler's weights.

  Attributes:
    parts: of the run as the sampler has them: its frozen weights, and its
      layout in place of the parameters'.
    config: what is left to the sampler, which need not round any more.
    move: compiled, parameters -> weights; None where they are the same.
    abstract_weights: shapes, dtypes and shardings of what it returns.
    num_bytes: what a device gets from others, each time.
  """

  parts: Any
  config: SamplingConfig
  move: Callable[[Params], Params] | None
  abstract_weights: Params
  num_bytes: float

  def __call__(self, params: Params) -> Params:
    """Weights of these parameters; the same arrays without a `move`."""
    return params if self.move is None else self.move(params)


def keeps_weights(experiment: Experiment) -> bool:
  """Whether weights outlive the parameters, which a train step donates.

  Further attempts for a step are made after the parameters they are from have
  changed.
  """
  return (
    experiment.sampling.lag > 0
    and experiment.data.dynamic_sampling == 'resample'
  )


def compile_weight_sync(
  parts: parts_lib.ModelParts, experiment: Experiment
) -> WeightSync:
  """The weight sync of a run, compiled; frozen weights are synced here, once.

  Args:
    parts: of the run; frozen weights may be abstract, and then stay so.
    experiment: the run.
  """
  precision = experiment.sampling.precision
  layout = _gathered if experiment.sampling.gather_fsdp else _unchanged
  params = state.abstract_state(parts).params
  adapted = parts.adapter_scale is not None
  # Scaled back to f32: its dtype does not tell.
  coarse = precision not in ('float32', 'bfloat16')
  rounding = functools.partial(
    weight_rounding.round_params, precision=precision, keep_bfloat16=True
  )
  changes = coarse or keeps_weights(experiment)
  round_params = rounding
  if adapted:
    changes |= precision != 'float32'
    round_params = functools.partial(
      weight_rounding.round_adapter, precision=precision
    )
  move, weights = _compile(round_params, params, layout, changes=changes)
  base = parts.base
  if base is not None:
    like = jax.tree.map(_abstract, base)
    move_base, base_weights = _compile(rounding, like, layout, changes=coarse)
    if move_base is not None:
      is_abstract = isinstance(jax.tree.leaves(base)[0], jax.ShapeDtypeStruct)
      base = base_weights if is_abstract else move_base(base)
  shardings = dataclasses.replace(
    parts.shardings, params=jax.tree.map(lambda leaf: leaf.sharding, weights)
  )
  return WeightSync(
    parts=dataclasses.replace(parts, base=base, shardings=shardings),
    config=dataclasses.replace(experiment.sampling, precision='float32'),
    move=move,
    abstract_weights=weights,
    num_bytes=received(params, weights),
  )


def received(before: Any, after: Any) -> float:
  """Bytes that a device lacks of its shards.

  Args:
    before: shapes with shardings.
    after: those of the same tree, whose shards contain the ones before.
  """

  def of_leaf(old: Any, new: Any) -> float:
    had = math.prod(old.sharding.shard_shape(old.shape))
    has = math.prod(new.sharding.shard_shape(new.shape))
    return float((has - had) * new.dtype.itemsize)

  return sum(jax.tree.leaves(jax.tree.map(of_leaf, before, after)))


def _compile(
  rounding: Callable[[Params], Params],
  like: Params,
  layout: Callable[[NamedSharding], NamedSharding],
  *,
  changes: bool,
) -> tuple[Callable[[Params], Params] | None, Params]:
  """(params -> weights, abstract weights); None if nothing changes.

  Args:
    rounding: of values; keeps the tree.
    like: shapes, dtypes and shardings of the parameters.
    layout: from their shardings to those of the weights.
    changes: there is a change that dtypes and shardings do not show.
  """
  where = jax.tree.map(lambda leaf: leaf.sharding, like)
  there = jax.tree.map(layout, where)

  def move(params: Params) -> Params:
    rounded = rounding(params)
    # Rounded where they are, and moved in as few bytes as that leaves.
    rounded = jax.lax.with_sharding_constraint(rounded, where)
    return jax.tree.map(jnp.copy, rounded)

  weights = jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    jax.eval_shape(move, like),
    there,
  )
  same = jax.tree.map(
    lambda old, new: (
      old.dtype == new.dtype
      and old.sharding.is_equivalent_to(new.sharding, len(old.shape))
    ),
    like,
    weights,
  )
  if all(jax.tree.leaves(same)) and not changes:
    return None, like
  return jax.jit(move, in_shardings=(where,), out_shardings=there), weights


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _unchanged(sharding: NamedSharding) -> NamedSharding:
  return sharding


def _gathered(sharding: NamedSharding) -> NamedSharding:
  """The same without the axis that decoding would gather at every token."""

  def left(entry: Any) -> Any:
    names = entry if isinstance(entry, tuple) else (entry,)
    kept = tuple(name for name in names if name not in (None, _GATHERED))
    return kept or None

  spec = PartitionSpec(*(left(entry) for entry in sharding.spec))
  return NamedSharding(sharding.mesh, spec)
