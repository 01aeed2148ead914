"""Rollouts that are sampled ahead of the step that trains on them.

With a lag of k the rollout of step s is sampled from the parameters of step
s - k, or the first ones, and is under way while the host verifies the batches
before it. What a rollout holds is a function of (parameters, seed, step), so
the lag alone decides what is trained on, and never how fast anything was.
Verdicts keep to that: the limit of a verifier counts its own CPU time. What
another machine could judge otherwise is an answer at that very limit, or a
verifier that waits past the backstop by the clock; `rewards/timeouts` counts
both.
"""

import collections
from collections.abc import Sequence
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from dppo_jax import parallel
from dppo_jax.base import (
  Array,
  Params,
  Prompts,
  Rollout,
  Stream,
  TrainState,
  stream_key,
)
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.hosts import host_rows
from dppo_jax.runtime.programs import compiled
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.reporting.recorder import Stopwatch
from dppo_jax.runtime.rollouts import conversations
from dppo_jax.runtime.rollouts.integrity import IntegrityCheck
from dppo_jax.runtime.rollouts.weight_sync import (
  compile_weight_sync,
  noise_key,
)


@flax.struct.dataclass(kw_only=True)
class PendingRollout:
  """A rollout under way, and what its step needs of the policy it is from.

  Attributes:
    rollout: as sampled, stop strings not cut yet.
    weights: of the sampler, where further attempts may follow.
    head: [V, D], where a divergence compares whole distributions with it.
  """

  rollout: Rollout
  weights: Params | None = None
  head: Array | None = None


@flax.struct.dataclass(kw_only=True)
class RunState(TrainState):
  """The contents of a checkpoint: a state, and rollouts of later steps.

  Attributes:
    queue: of the steps from `step` on.
  """

  queue: tuple[PendingRollout, ...] = ()


class RolloutQueue:
  """Hands parameters over, samples, and holds what is sampled ahead.

  For each step: `begin`, `take`, `fill`, and after it `wait`.

  Attributes:
    integrity: checks of what was sampled since `begin`.
    num_bytes: that a device received for the weights of the last step.
  """

  def __init__(
    self,
    experiment: Experiment,
    parts: parts_lib.Parts,
    pool: VerifierPool | None = None,
  ):
    """Compiles; nothing is sampled yet.

    Args:
      experiment: the run.
      parts: its parts.
      pool: the environment, where one answers between turns.
    """
    self._parts = parts
    self._lag = experiment.sampling.lag
    self._num_steps = experiment.num_steps
    self._num_prompts = experiment.data.num_prompts
    self._prompt_length = experiment.data.max_prompt_length
    self._resampling = experiment.data.dynamic_sampling == 'resample'
    self._weight_sync = compile_weight_sync(parts, experiment)
    self.integrity = IntegrityCheck(experiment, parts, self._weight_sync)
    sampling = self._weight_sync.parts
    config = self._weight_sync.config
    self._sample: Any = compiled.compile_sampler(sampling, config)
    if experiment.environment.name:
      self._sample = conversations.ConversationSampler(
        sampling,
        parts.prompts,
        config,
        experiment.environment,
        pool,
        experiment.rewards.truncated,
      )
    self._copy_head: Any = None
    anchored = experiment.loss.anchor == 'rollout'
    if anchored and parts_lib.keeps_hidden(experiment):
      self._copy_head = compiled.compile_anchor_head(sampling)
    self._queue: collections.deque[PendingRollout] = collections.deque()
    self._weights: Params | None = None
    self._next, self._end = 0, 0  # Steps to sample for now.
    self.num_bytes = 0.0

  def resume(self, pending: Sequence[PendingRollout]) -> None:
    """Goes on with what a checkpoint holds."""
    self._queue = collections.deque(pending)

  def pending(self) -> tuple[PendingRollout, ...]:
    """Rollouts sampled ahead, that of the next step first."""
    return tuple(self._queue)

  def lag_of(self, step: int) -> int:
    """Steps between the parameters sampled from and those of `step`."""
    return min(step, self._lag)

  def begin(self, state: TrainState, clock: Stopwatch) -> None:
    """Hands the weights over, if anything is sampled from them."""
    step = int(state.step)
    self._next = step + len(self._queue)
    ahead = min(self._lag, self._num_steps - step - 1)
    self._end = step + 1 + max(0, ahead)  # Beyond the last step only its own.
    self._weights, self.num_bytes = None, 0.0
    if self._next < self._end:
      key = noise_key(state.key, step)
      synced = self._weight_sync(state.params, key)
      self._weights = jax.block_until_ready(synced)
      self.num_bytes = self._weight_sync.num_bytes
      self.integrity.synced(state)
    clock.lap('weight_sync')

  def take(self, state: TrainState) -> PendingRollout:
    """The rollout of this step, which may still be under way."""
    if not self._queue:
      self._launch(state.key)
    return self._queue.popleft()

  def fill(self, state: TrainState) -> None:
    """Starts sampling for the steps ahead; forgets the weights."""
    while self._next < self._end:
      self._launch(state.key)
    self._weights = None

  def wait(self) -> None:
    """Returns once everything under way is sampled."""
    jax.block_until_ready(
      [pending_rollout.rollout for pending_rollout in self._queue]
    )

  def again(
    self, pending_rollout: PendingRollout, state: TrainState, attempt: int
  ) -> Rollout:
    """A further attempt, from the policy of the first.

    Args:
      pending_rollout: the first.
      state: of its step.
      attempt: 1 or more.
    """
    step = int(state.step)
    key = stream_key(state.key, Stream.RESAMPLE, step)
    key = jax.random.fold_in(key, attempt)
    return self._sample(
      pending_rollout.weights, self._prompts(step, attempt), key
    )

  def abstract(
    self, state: TrainState, step: int
  ) -> tuple[PendingRollout, ...]:
    """Shapes, dtypes and shardings of `pending` after `step` train steps.

    Args:
      state: abstract, of any step.
      step: train steps taken.
    """
    # Before the first step nothing is sampled.
    count = min(self._lag, self._num_steps - step) if step else 0
    if not count:
      return ()
    rows = self._parts.batch_sharding

    def spread(leaf: Any) -> Any:
      return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=rows)

    shape = (self._num_prompts, self._prompt_length)
    fields: dict[str, Any] = dict(
      tokens=jax.ShapeDtypeStruct(shape, jnp.int32),
      mask=jax.ShapeDtypeStruct(shape, jnp.bool_),
      example_id=jax.ShapeDtypeStruct(shape[:1], jnp.int32),
    )
    prompts = Prompts(**fields)
    weights = self._weight_sync.abstract_weights
    if isinstance(self._sample, conversations.ConversationSampler):
      rollout = self._sample.shapes(weights, prompts, state.key)
    else:
      rollout = jax.eval_shape(self._sample, weights, prompts, state.key)
    head: Any = None
    if self._copy_head is not None:
      head = jax.eval_shape(self._copy_head, weights)
      where = parallel.head_sharding(self._parts.mesh)
      head = jax.ShapeDtypeStruct(head.shape, head.dtype, sharding=where)
    pending_rollout = PendingRollout(
      rollout=jax.tree.map(spread, rollout),
      weights=weights if self._resampling else None,
      head=head,
    )
    return (pending_rollout,) * count

  def _launch(self, key: Array) -> None:
    """Starts sampling for the step after those under way."""
    step, weights = self._next, self._weights
    self._next += 1
    key = stream_key(key, Stream.SAMPLE, step)
    rollout = self._sample(weights, self._prompts(step, 0), key)
    self.integrity.sampled(weights, rollout)
    head = self._copy_head and self._copy_head(weights)
    if not self._resampling:
      weights = None
    self._queue.append(
      PendingRollout(rollout=rollout, weights=weights, head=head)
    )

  def _prompts(self, step: int, attempt: int) -> Any:
    return host_rows.put_rows(
      self._parts.batch_sharding,
      functools.partial(self._parts.prompts.batch, step, attempt),
      self._num_prompts,
    )
