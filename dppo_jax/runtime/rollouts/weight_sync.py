"""Weight sync: parameters cast and resharded on the devices for the sampler.

One program does both, and draws the noise that a config asks for. Nothing
leaves the devices, and where neither precision nor layout differ the sampler
reads the parameters themselves.
"""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from dppo_jax.base import Array, Params, Stream, stream_key
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.sampling import weight_noise, weight_rounding
from dppo_jax.sampling.decode import SamplingConfig

_GATHERED = 'fsdp'


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightSync:
  """The compiled weight sync: parameters to the sampler's weights.

  Attributes:
    parts: of the run as the sampler has them: its frozen weights, and its
      layout in place of the parameters'.
    config: what is left to the sampler, which need not round any more.
    move: compiled, parameters -> weights, or (parameters, key) -> weights with
      noise; None where they are the same.
    abstract_weights: shapes, dtypes and shardings of what it returns.
    num_bytes: what a device gets from others, each time.
    noisy: whether `move` takes a key.
  """

  parts: Any
  config: SamplingConfig
  move: Callable[..., Params] | None
  abstract_weights: Params
  num_bytes: float
  noisy: bool

  def __call__(self, params: Params, key: Array | None = None) -> Params:
    """Weights of these parameters; the same arrays without a `move`.

    Args:
      params: of the step.
      key: of their noise, see `noise_key`; only read where they are `noisy`.
    """
    if self.move is None:
      return params
    return self.move(params, key) if self.noisy else self.move(params)


def keeps_weights(experiment: Experiment) -> bool:
  """Whether weights outlive the parameters, which a train step donates.

  Further attempts for a step are made after the parameters they are from have
  changed.
  """
  return (
    experiment.sampling.lag > 0
    and experiment.data.dynamic_sampling == 'resample'
  )


def noise_key(key: Array, step: int) -> Array:
  """Key of the noise of the weights that are synced at a step.

  Args:
    key: of the run.
    step: train steps taken.
  """
  return stream_key(key, Stream.NOISE, step)


def compile_weight_sync(
  parts: parts_lib.ModelParts, experiment: Experiment
) -> WeightSync:
  """The weight sync of a run, compiled; frozen weights are synced here, once.

  Args:
    parts: of the run; frozen weights may be abstract, and then stay so.
    experiment: the run.
  """
  precision = experiment.sampling.precision
  noise = experiment.sampling.weight_noise
  layout = _gathered if experiment.sampling.gather_fsdp else _unchanged
  params = parts.abstract_state.params
  adapted = parts.adapter_scale is not None
  # Scaled back to f32: its dtype does not tell.
  coarse = precision not in ('float32', 'bfloat16')
  rounding = functools.partial(
    weight_rounding.round_params, precision=precision, keep_bfloat16=True
  )
  changes = coarse or noise > 0 or keeps_weights(experiment)
  round_params = rounding
  if adapted:
    changes |= precision != 'float32'
    round_params = functools.partial(
      weight_rounding.round_adapter, precision=precision
    )
  if noise:
    round_params = _with_noise(round_params, noise, adapter=adapted)
  move, weights = _compile(
    round_params, params, layout, changes=changes, noisy=noise > 0
  )
  if noise:  # Frozen weights are synced once, so that their noise stays.
    key = noise_key(jax.random.PRNGKey(experiment.seed), 0)
    rounding = functools.partial(
      _with_noise(rounding, noise, adapter=False), key=key
    )
  base = _synced_base(parts.base, rounding, layout, changes=coarse or noise > 0)
  synced = dataclasses.replace(parts.abstract_state, params=weights)
  return WeightSync(
    parts=dataclasses.replace(parts, base=base, abstract_state=synced),
    config=dataclasses.replace(experiment.sampling, precision='float32'),
    move=move,
    abstract_weights=weights,
    num_bytes=received(params, weights),
    noisy=noise > 0,
  )


def _synced_base(
  base: Params | None,
  rounding: Callable[[Params], Params],
  layout: Callable[[NamedSharding], NamedSharding],
  *,
  changes: bool,
) -> Params | None:
  """Frozen weights as the sampler has them; arguments as in `_compile`."""
  if base is None:
    return None
  like = jax.tree.map(_abstract, base)
  move, weights = _compile(rounding, like, layout, changes=changes)
  if move is None:
    return base
  is_abstract = isinstance(jax.tree.leaves(base)[0], jax.ShapeDtypeStruct)
  return weights if is_abstract else move(base)


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
  rounding: Callable[..., Params],
  like: Params,
  layout: Callable[[NamedSharding], NamedSharding],
  *,
  changes: bool,
  noisy: bool = False,
) -> tuple[Callable[..., Params] | None, Params]:
  """(params -> weights, abstract weights); None if nothing changes.

  Args:
    rounding: of values, given a key where `noisy`; keeps the tree.
    like: shapes, dtypes and shardings of the parameters.
    layout: from their shardings to those of the weights.
    changes: there is a change that dtypes and shardings do not show.
    noisy: whether a key is the second argument.
  """
  where = jax.tree.map(lambda leaf: leaf.sharding, like)
  there = jax.tree.map(layout, where)

  def move(params: Params, *key: Array) -> Params:
    rounded = rounding(params, *key)
    # Rounded where they are, and moved in as few bytes as that leaves.
    rounded = jax.lax.with_sharding_constraint(rounded, where)
    return jax.tree.map(jnp.copy, rounded)

  keys = (jax.eval_shape(lambda: jax.random.PRNGKey(0)),) if noisy else ()
  weights = jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    jax.eval_shape(move, like, *keys),
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
  given = (where, *(None for _ in keys))
  return jax.jit(move, in_shardings=given, out_shardings=there), weights


def _with_noise(
  rounding: Callable[[Params], Params], scale: float, *, adapter: bool
) -> Callable[..., Params]:
  """(params, key) -> rounded weights, which had noise before."""

  def perturb_and_round(params: Params, key: Array) -> Params:
    noisy = weight_noise.add_noise(params, scale, key, adapter=adapter)
    return rounding(noisy)

  return perturb_and_round


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
