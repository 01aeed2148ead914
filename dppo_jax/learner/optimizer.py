"""AdamW with a schedule, clipping, and updates that refuse NaN."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dppo_jax.base import Array, OptState, Params

_MATRICES = ('kernel', 'embedding', 'head', 'lora_a', 'lora_b')


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """AdamW; counts are in updates, several of which make a train step.

  Attributes:
    learning_rate: highest learning rate.
    schedule: a key of `SCHEDULES`.
    final_fraction: last learning rate over the highest.
    num_updates: updates of the whole run.
    num_warmup_updates: updates of linear increase from 0.
    b1: decay of the first moment.
    b2: decay of the second moment.
    epsilon: added to the root of the second moment.
    weight_decay: decoupled, on matrices only.
    clip_norm: global gradient norm, inf for none.
  """

  learning_rate: float
  schedule: str
  final_fraction: float
  num_updates: int
  num_warmup_updates: int
  b1: float
  b2: float
  epsilon: float
  weight_decay: float
  clip_norm: float


def _constant(config: OptimizerConfig, num_decay: int) -> optax.Schedule:
  del num_decay
  return optax.constant_schedule(config.learning_rate)


def _linear(config: OptimizerConfig, num_decay: int) -> optax.Schedule:
  last = config.learning_rate * config.final_fraction
  return optax.linear_schedule(config.learning_rate, last, num_decay)


def _cosine(config: OptimizerConfig, num_decay: int) -> optax.Schedule:
  return optax.cosine_decay_schedule(
    config.learning_rate, num_decay, config.final_fraction
  )


SCHEDULES: Mapping[str, Callable[[OptimizerConfig, int], optax.Schedule]] = {
  'constant': _constant,
  'linear': _linear,
  'cosine': _cosine,
}


def make_schedule(config: OptimizerConfig) -> optax.Schedule:
  """Update number -> learning rate."""
  warmup = config.num_warmup_updates
  decay = SCHEDULES[config.schedule](
    config, max(config.num_updates - warmup, 1)
  )
  if not warmup:
    return decay
  rise = optax.linear_schedule(0.0, config.learning_rate, warmup)
  return optax.join_schedules([rise, decay], [warmup])


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
  """Clip, then AdamW; a gradient that is not finite changes nothing.

  The state counts skipped updates, in a row and in all (`nonfinite_counts`).
  """
  clip = optax.clip_by_global_norm(config.clip_norm)
  if config.clip_norm == float('inf'):
    clip = optax.identity()
  adamw = optax.adamw(
    make_schedule(config),
    b1=config.b1,
    b2=config.b2,
    eps=config.epsilon,
    weight_decay=config.weight_decay,
    mask=_is_matrix,
  )
  # The wrapper would let the update through after so many errors; the run
  # itself decides when to stop.
  never = jnp.iinfo(jnp.int32).max
  return optax.apply_if_finite(optax.chain(clip, adamw), never)


def _is_matrix(params: Params) -> Params:
  """True on weights; norms and biases do not decay."""

  def is_matrix(path: tuple[Any, ...], leaf: Array) -> bool:
    del leaf
    # Boxed parameters end their path in the box's own field.
    names = [key.key for key in path if hasattr(key, 'key')]
    return names[-1] in _MATRICES

  return jax.tree_util.tree_map_with_path(is_matrix, params)


def nonfinite_counts(opt_state: OptState) -> tuple[Array, Array]:
  """Skipped updates: in a row until now, and in all; i32 []."""
  return opt_state.notfinite_count, opt_state.total_notfinite


def learning_rate_of(config: OptimizerConfig, opt_state: OptState) -> Array:
  """The learning rate of the next update; f32 [].

  Skipped updates do not advance the schedule.
  """

  def of_schedule(path: tuple[Any, ...], value: Any) -> bool:
    del value  # Adam's state has a count of its own.
    return path[-1].tuple_name == 'ScaleByScheduleState'

  count = optax.tree.get(opt_state.inner_state, 'count', filtering=of_schedule)
  return jnp.asarray(make_schedule(config)(count), jnp.float32)
