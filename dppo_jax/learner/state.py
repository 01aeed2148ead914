"""The train state, born sharded."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import optax

from dppo_jax import parallel
from dppo_jax.base import Array, Params, Stream, TrainState, stream_key
from dppo_jax.models.policy import Policy


def abstract_state(
  policy: Policy, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
  """Shapes, dtypes and shardings of the state; allocates nothing."""
  key = jax.random.PRNGKey(0)
  boxed = jax.eval_shape(lambda key: _init(policy, optimizer, key), key)
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    nn.unbox(boxed),
    parallel.tree_shardings(mesh, boxed),
  )


def shardings_of(state: TrainState) -> TrainState:
  """Where each array lives: a TrainState of NamedSharding."""
  return jax.tree.map(lambda leaf: leaf.sharding, state)


def init_state(
  policy: Policy,
  optimizer: optax.GradientTransformation,
  shardings: TrainState,
  seed: int,
) -> TrainState:
  """Initial state, every array created where it will live.

  Args:
    policy: the model.
    optimizer: what holds the optimizer state.
    shardings: of `shardings_of`.
    seed: of the run.
  """
  init = _compile_init(policy, optimizer, shardings)
  return init(jax.random.PRNGKey(seed))


def adopt(
  optimizer: optax.GradientTransformation,
  params: Params,
  shardings: TrainState,
  seed: int,
) -> TrainState:
  """Initial state around parameters that come from elsewhere.

  Args:
    optimizer: what holds the optimizer state.
    params: consumed; placed as in `shardings`.
    shardings: of `shardings_of`.
    seed: of the run.
  """

  def begin(params: Params) -> TrainState:
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      opt_state=optimizer.init(params),
      key=jax.random.PRNGKey(seed),
    )

  return jax.jit(begin, out_shardings=shardings, donate_argnums=0)(params)


def restart(
  optimizer: optax.GradientTransformation,
  state: TrainState,
  shardings: TrainState,
) -> TrainState:
  """The same parameters at step 0 of a new optimizer.

  Args:
    optimizer: of what comes next; its state has the tree of `shardings`.
    state: consumed.
    shardings: a TrainState of NamedSharding for the result.
  """
  return _compile_restart(optimizer, shardings)(state)


def _compile_init(
  policy: Policy,
  optimizer: optax.GradientTransformation,
  shardings: TrainState,
) -> Callable[[Array], TrainState]:
  """Key of the run -> its initial state."""

  def init(key: Array) -> TrainState:
    return nn.unbox(_init(policy, optimizer, key))

  return jax.jit(init, out_shardings=shardings)


def _compile_restart(
  optimizer: optax.GradientTransformation, shardings: TrainState
) -> Callable[[TrainState], TrainState]:
  """State -> its parameters and key at step 0 of a new optimizer."""

  def begin(state: TrainState) -> TrainState:
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=state.params,
      opt_state=optimizer.init(state.params),
      key=state.key,
    )

  return jax.jit(begin, out_shardings=shardings, donate_argnums=0)


def _init(
  policy: Policy, optimizer: optax.GradientTransformation, key: Array
) -> TrainState:
  """State whose parameters and moments carry their logical axes."""
  params = policy.init(stream_key(key, Stream.INIT, 0))
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    key=key,
  )
