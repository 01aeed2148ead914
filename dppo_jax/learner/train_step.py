"""The train step: one compiled program from a batch to a new state.

All updates of a rollout batch are one `lax.scan` over its minibatches; a
minibatch may be a scan over microbatches. Weights of the tokens are computed
from the mask of the whole minibatch, so that how it is split does not change
the update. Arrays are global and sharded by `NamedSharding`; jit inserts the
collectives.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import optax

from dppo_jax import parallel
from dppo_jax.base import (
  Array,
  LossFn,
  Metrics,
  Params,
  Stream,
  TrainState,
  stream_key,
)
from dppo_jax.learner.length_buckets import LengthBuckets
from dppo_jax.learner.optimizer import nonfinite_counts
from dppo_jax.ops.masking import aggregation_weights

# (batch as trained on, record [B, R]) -> metrics.
MetricsFn = Callable[[Any, Any], Metrics]


class StepRecord(NamedTuple):
  """Record of the loss, in the order of the batch.

  Attributes:
    record: of the loss, [B, ...] leaves.
    update: i32 [B], number of the minibatch that used the row, from 0.
  """

  record: Any
  update: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepConfig:
  """How a batch is cut, and how its tokens are weighed.

  Attributes:
    num_minibatches: updates per batch.
    num_microbatches: parts of a minibatch whose gradients are added up.
    group_size: rows that stay together when the batch is shuffled.
    prompt_length: P.
    buckets: widths that a part of a minibatch is run at.
    aggregation: a key of `AGGREGATIONS`.
    length_norm: its constant, tokens.
  """

  num_minibatches: int
  num_microbatches: int
  group_size: int
  prompt_length: int
  buckets: LengthBuckets
  aggregation: str
  length_norm: float


class Learner(NamedTuple):
  """A train step's functions and settings.

  Attributes:
    loss_fn: the loss, and its record.
    metrics_fn: metrics of the record.
    optimizer: updates parameters; wraps `optax.apply_if_finite`.
    config: how the batch is cut.
    mesh: where it lives.
  """

  loss_fn: LossFn
  metrics_fn: MetricsFn
  optimizer: optax.GradientTransformation
  config: StepConfig
  mesh: Mesh


def train_step(
  learner: Learner, state: TrainState, batch: Any, shared: Any = None
) -> tuple[TrainState, Metrics, StepRecord]:
  """State, metrics and record after all updates of one batch.

  Args:
    learner: its functions and settings.
    state: state before; donate it.
    batch: pytree of [B, ...] arrays with a `completion_mask`.
    shared: further input of the loss, the same for every row.

  Returns:
    The state after, metrics, and the record of the loss, which no update reads.
    A minibatch without completion tokens changes neither parameters nor the
    optimizer's state, its schedule among it; `step` counts batches and goes on.
    The metrics: those of `metrics_fn`, and `loss/total`, mean over updates;
    `optimizer/gradient_norm`, mean, before clipping;
    `optimizer/nonfinite_in_a_row` and `…_total`, skipped updates;
    `throughput/useful_token_share`, completion tokens by the completion columns
    that were run.
  """
  config = learner.config
  num_rows = batch.completion_mask.shape[0]
  rows, batch = _shuffle(learner, state, batch)
  minibatches = split_rows(learner.mesh, batch, config.num_minibatches)
  (params, opt_state), (losses, norms, columns, record) = jax.lax.scan(
    functools.partial(_update, learner, shared),
    (state.params, state.opt_state),
    minibatches,
  )
  record = join_rows(record)
  in_a_row, total = nonfinite_counts(opt_state)
  metrics = {
    **learner.metrics_fn(batch, record),
    'loss/total': jnp.mean(losses),
    'optimizer/gradient_norm': jnp.mean(norms),
    'optimizer/nonfinite_in_a_row': in_a_row.astype(jnp.float32),
    'optimizer/nonfinite_total': total.astype(jnp.float32),
    'throughput/useful_token_share': (
      jnp.sum(batch.completion_mask, dtype=jnp.float32) / jnp.sum(columns)
    ),
  }
  state = dataclasses.replace(
    state, step=state.step + 1, params=params, opt_state=opt_state
  )
  place = jnp.argsort(rows)
  record = take_rows(learner.mesh, record, place)
  update_of_row = place // (num_rows // config.num_minibatches)
  return state, metrics, StepRecord(record, update_of_row.astype(jnp.int32))


def _shuffle(
  learner: Learner, state: TrainState, batch: Any
) -> tuple[Array, Any]:
  """Numbers of the rows i32 [B], groups shuffled, and the batch so ordered.

  A single minibatch is taken in order.
  """
  config, num_rows = learner.config, batch.completion_mask.shape[0]
  num_groups = num_rows // config.group_size
  rows = jnp.arange(num_rows)
  if config.num_minibatches > 1:
    key = stream_key(state.key, Stream.SHUFFLE, state.step)
    order = jax.random.permutation(key, num_groups)
    columns = jnp.arange(config.group_size)[None]
    rows = (order[:, None] * config.group_size + columns).reshape(-1)
    batch = take_rows(learner.mesh, batch, rows)
  return rows, batch


# Parameters and optimizer state; loss, gradient norm, completion columns that
# were run, and record of an update.
_Carry = tuple[Params, Any]
_Updated = tuple[Array, Array, Array, Any]


def _update(
  learner: Learner, shared: Any, carry: _Carry, minibatch: Any
) -> tuple[_Carry, _Updated]:
  """One update: gradient of a minibatch, in one or several parts, applied."""
  params, opt_state = carry
  config, buckets = learner.config, learner.config.buckets
  mask = minibatch.completion_mask[:, config.prompt_length :]
  weights = aggregation_weights(mask, config.aggregation, config.length_norm)
  differentiate = buckets.shortened(
    functools.partial(
      jax.value_and_grad(learner.loss_fn, has_aux=True), params, shared=shared
    )
  )
  part = minibatch, weights
  if config.num_microbatches == 1:
    (loss, record), gradients = differentiate(*part)
    columns = buckets.columns(minibatch.token_mask)
  else:

    def add_part(
      carry: tuple[Params, Array], part: tuple[Any, Array]
    ) -> tuple[tuple[Params, Array], Any]:
      (loss, record), gradients = differentiate(*part)
      columns = buckets.columns(part[0].token_mask)
      total = jax.tree.map(jnp.add, carry, (gradients, loss))
      return total, (record, columns)

    order = None
    if buckets.reorders:
      order = buckets.order(minibatch.token_mask)
      part = take_rows(learner.mesh, part, order)
    parts = split_rows(learner.mesh, part, config.num_microbatches)
    zero = (jax.tree.map(jnp.zeros_like, params), jnp.zeros(()))
    (gradients, loss), (record, columns) = jax.lax.scan(add_part, zero, parts)
    record = join_rows(record)
    if order is not None:
      record = take_rows(learner.mesh, record, jnp.argsort(order))
  norm = optax.tree.norm(gradients)

  def apply() -> _Carry:
    updates, new_state = learner.optimizer.update(gradients, opt_state, params)
    return optax.apply_updates(params, updates), new_state

  # Without a token nothing was learned: momentum and decay would move the
  # parameters all the same, and the schedule would go on.
  new = jax.lax.cond(
    jnp.any(minibatch.completion_mask), apply, lambda: (params, opt_state)
  )
  return new, (loss, norm, jnp.sum(columns), record)


def compile_train_step(
  learner: Learner,
  shardings: TrainState,
  *,
  recorded: bool = False,
  shared: Any = None,
  name: str = 'step',
) -> Callable[..., Any]:
  """`train_step`, compiled: state sharded and donated, batch sharded by rows.

  Args:
    learner: as in `train_step`.
    shardings: a TrainState of NamedSharding.
    recorded: returns the record, which stays on the devices, sharded by rows,
      until it is fetched; otherwise the compiler drops it.
    shared: shardings of what the loss shares among rows, where it does; the
      step then takes it after the batch.
    name: of the program, in profiles and where compiling is reported.

  Returns:
    (state, batch) -> (state, metrics), or (state, metrics, StepRecord); the
    state passed in is consumed.
  """
  num_results = 3 if recorded else 2

  def step(state: TrainState, batch: Any, *more: Any) -> tuple[Any, ...]:
    return train_step(learner, state, batch, *more)[:num_results]

  step.__name__ = name
  by_rows = parallel.batch_sharding(learner.mesh)
  outputs = (shardings, parallel.replicated(learner.mesh), by_rows)
  return jax.jit(
    step,
    in_shardings=(shardings, by_rows, *(() if shared is None else (shared,))),
    out_shardings=outputs[:num_results],
    donate_argnums=0,
  )


def split_rows(mesh: Mesh, tree: Any, count: int) -> Any:
  """[B, ...] leaves to [count, B / count, ...], rows still sharded."""
  sharding = NamedSharding(
    mesh, PartitionSpec(None, *parallel.batch_sharding(mesh).spec)
  )

  def split(leaf: Array) -> Array:
    parts = leaf.reshape(count, -1, *leaf.shape[1:])
    return jax.lax.with_sharding_constraint(parts, sharding)

  return jax.tree.map(split, tree)


def take_rows(mesh: Mesh, tree: Any, numbers: Array) -> Any:
  """[B, ...] leaves with the rows of these numbers, rows still sharded.

  Each device gets a share of the columns of all rows, orders them and sends
  them on. Left to the compiler, every device would hold all rows in full.

  Args:
    mesh: where rows live.
    tree: whose rows the mesh divides.
    numbers: i32 [B].
  """
  shards = parallel.num_batch_shards(mesh)
  by_rows = parallel.batch_sharding(mesh)
  by_columns = NamedSharding(mesh, PartitionSpec(None, *by_rows.spec))

  def take(leaf: Array) -> Array:
    if shards == 1 or leaf.ndim == 1:
      return jnp.take(leaf, numbers, axis=0)
    rows = leaf.reshape(len(leaf), -1)
    size = rows.shape[1]
    rows = jnp.pad(rows, ((0, 0), (0, -size % shards)))
    rows = jax.lax.with_sharding_constraint(rows, by_columns)
    rows = jnp.take(rows, numbers, axis=0)
    rows = jax.lax.with_sharding_constraint(rows, by_columns)
    rows = jax.lax.with_sharding_constraint(rows, by_rows)
    return rows[:, :size].reshape(leaf.shape)

  return jax.tree.map(take, tree)


def join_rows(tree: Any) -> Any:
  """Undoes `split_rows`."""
  return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)
