"""The train step: one compiled program from a batch to a new state.

All updates of a rollout batch are one `lax.scan` over its minibatches; a
minibatch may be a scan over microbatches. Weights of the tokens are computed
from the mask of the whole minibatch, so that how it is split does not change
the update. Arrays are global and sharded by `NamedSharding`; jit inserts the
collectives.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import optax

from dppo_jax import parallel
from dppo_jax.base import Array, Metrics, Params, Stream, TrainState, stream_key
from dppo_jax.learner.optimizer import nonfinite_counts
from dppo_jax.ops.masking import aggregation_weights

# (params, batch of [b, T] arrays, weight of each completion token [b, R],
# what all rows share) -> loss f32 [], record [b, ...].
LossFn = Callable[[Params, Any, Array, Any], tuple[Array, Any]]
# (batch as trained on, record [B, R]) -> metrics.
MetricsFn = Callable[[Any, Any], Metrics]


class StepRecord(NamedTuple):
  """What the loss recorded, in the order of the batch.

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
    num_minibatches: updates a batch.
    num_microbatches: parts of a minibatch whose gradients are added up.
    group_size: rows that stay together when the batch is shuffled.
    prompt_length: P.
    aggregation: a key of `AGGREGATIONS`.
    length_norm: its constant, tokens.
  """

  num_minibatches: int
  num_microbatches: int
  group_size: int
  prompt_length: int
  aggregation: str
  length_norm: float


def train_step(
  loss_fn: LossFn,
  metrics_fn: MetricsFn,
  optimizer: optax.GradientTransformation,
  config: StepConfig,
  mesh: Mesh,
  state: TrainState,
  batch: Any,
  shared: Any = None,
) -> tuple[TrainState, Metrics]:
  """Runs all updates of one batch.

  Args:
    loss_fn: the loss, and what it records.
    metrics_fn: what to report of the record.
    optimizer: updates parameters; wraps `optax.apply_if_finite`.
    config: how the batch is cut.
    mesh: where it lives.
    state: state before; donate it.
    batch: pytree of [B, ...] arrays with a `completion_mask`.
    shared: what the loss reads besides, the same for every row.

  Returns:
    The state after, and metrics. A minibatch without completion tokens changes
    neither parameters nor the optimizer's state, its schedule among it; `step`
    counts batches and goes on. The metrics: those of `metrics_fn`, and
    `loss/total`, mean over updates; `optimizer/gradient_norm`, mean, before
    clipping; `optimizer/nonfinite_in_a_row` and `…_total`, skipped updates.
  """
  state, metrics, _ = recorded_train_step(
    loss_fn, metrics_fn, optimizer, config, mesh, state, batch, shared
  )
  return state, metrics


def recorded_train_step(
  loss_fn: LossFn,
  metrics_fn: MetricsFn,
  optimizer: optax.GradientTransformation,
  config: StepConfig,
  mesh: Mesh,
  state: TrainState,
  batch: Any,
  shared: Any = None,
) -> tuple[TrainState, Metrics, StepRecord]:
  """`train_step`, which also returns what the loss recorded.

  No update reads the record; where it is not asked for, the compiler drops it.
  """
  num_rows = batch.completion_mask.shape[0]
  num_groups = num_rows // config.group_size
  rows = jnp.arange(num_rows)
  if config.num_minibatches > 1:
    key = stream_key(state.key, Stream.SHUFFLE, state.step)
    order = jax.random.permutation(key, num_groups)
    columns = jnp.arange(config.group_size)[None]
    rows = (order[:, None] * config.group_size + columns).reshape(-1)
    batch = jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0), batch)
  minibatches = split_rows(mesh, batch, config.num_minibatches)

  def update(
    carry: tuple[Params, Any], minibatch: Any
  ) -> tuple[tuple[Params, Any], tuple[Array, Array, Any]]:
    params, opt_state = carry
    gradients, loss, record = gradients_of(
      loss_fn, config, mesh, params, minibatch, shared
    )
    norm = optax.tree.norm(gradients)

    def apply() -> tuple[Params, Any]:
      updates, new_state = optimizer.update(gradients, opt_state, params)
      return optax.apply_updates(params, updates), new_state

    # Without a token nothing was learned: momentum and decay would move the
    # parameters all the same, and the schedule would go on.
    new = jax.lax.cond(
      jnp.any(minibatch.completion_mask), apply, lambda: (params, opt_state)
    )
    return new, (loss, norm, record)

  (params, opt_state), (losses, norms, record) = jax.lax.scan(
    update, (state.params, state.opt_state), minibatches
  )
  record = join_rows(record)
  in_a_row, total = nonfinite_counts(opt_state)
  metrics = {
    **metrics_fn(batch, record),
    'loss/total': jnp.mean(losses),
    'optimizer/gradient_norm': jnp.mean(norms),
    'optimizer/nonfinite_in_a_row': in_a_row.astype(jnp.float32),
    'optimizer/nonfinite_total': total.astype(jnp.float32),
  }
  state = dataclasses.replace(
    state, step=state.step + 1, params=params, opt_state=opt_state
  )
  place = jnp.argsort(rows)
  record = jax.tree.map(lambda leaf: jnp.take(leaf, place, axis=0), record)
  update_of_row = place // (num_rows // config.num_minibatches)
  return state, metrics, StepRecord(record, update_of_row.astype(jnp.int32))


def gradients_of(
  loss_fn: LossFn,
  config: StepConfig,
  mesh: Mesh,
  params: Params,
  batch: Any,
  shared: Any = None,
) -> tuple[Params, Array, Any]:
  """Gradient, loss and record of one minibatch, in one or several parts."""
  mask = batch.completion_mask[:, config.prompt_length :]
  weights = aggregation_weights(mask, config.aggregation, config.length_norm)

  def part_loss(params: Params, part: tuple[Any, Array]) -> tuple[Array, Any]:
    rows, row_weights = part
    return loss_fn(params, rows, row_weights, shared)

  differentiate = jax.value_and_grad(part_loss, has_aux=True)
  if config.num_microbatches == 1:
    (loss, record), gradients = differentiate(params, (batch, weights))
    return gradients, loss, record

  def add_part(
    carry: tuple[Params, Array], part: tuple[Any, Array]
  ) -> tuple[tuple[Params, Array], Any]:
    (loss, record), gradients = differentiate(params, part)
    return jax.tree.map(jnp.add, carry, (gradients, loss)), record

  parts = split_rows(mesh, (batch, weights), config.num_microbatches)
  zero = (jax.tree.map(jnp.zeros_like, params), jnp.zeros(()))
  (gradients, loss), record = jax.lax.scan(add_part, zero, parts)
  return gradients, loss, join_rows(record)


def compile_train_step(
  loss_fn: LossFn,
  metrics_fn: MetricsFn,
  optimizer: optax.GradientTransformation,
  config: StepConfig,
  mesh: Mesh,
  shardings: TrainState,
  *,
  recorded: bool = False,
  shared: Any = None,
) -> Callable[..., Any]:
  """`train_step`, compiled: state sharded and donated, batch sharded by rows.

  Args:
    loss_fn: as in `train_step`.
    metrics_fn: as in `train_step`.
    optimizer: as in `train_step`.
    config: as in `train_step`.
    mesh: as in `train_step`.
    shardings: a TrainState of NamedSharding.
    recorded: compiles `recorded_train_step`. The record stays on the devices,
      sharded by rows, until it is fetched.
    shared: shardings of what the loss shares among rows, where it does; the
      step then takes it after the batch.

  Returns:
    (state, batch) -> (state, metrics), or (state, metrics, StepRecord); the
    state passed in is consumed.
  """
  step_fn = recorded_train_step if recorded else train_step

  def step(state: TrainState, batch: Any, *more: Any) -> tuple[Any, ...]:
    return step_fn(
      loss_fn, metrics_fn, optimizer, config, mesh, state, batch, *more
    )

  by_rows = parallel.batch_sharding(mesh)
  outputs = (shardings, parallel.replicated(mesh))
  return jax.jit(
    step,
    in_shardings=(shardings, by_rows, *(() if shared is None else (shared,))),
    out_shardings=(*outputs, by_rows) if recorded else outputs,
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


def join_rows(tree: Any) -> Any:
  """Undoes `split_rows`."""
  return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)
