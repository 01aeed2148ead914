"""Compiled programs of a run: sampler, scorer, batcher, train step."""

from collections.abc import Callable
import dataclasses
import functools
import os
import pathlib
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dppo_jax import hardware, parallel
from dppo_jax.base import (
  Array,
  Batch,
  Metrics,
  Params,
  Prompts,
  Rollout,
  TokenStats,
  TrainState,
)
from dppo_jax.learner import batches, scoring
from dppo_jax.learner.loss import policy_loss
from dppo_jax.learner.metrics import trust_region_metrics
from dppo_jax.learner.train_step import Learner, compile_train_step
from dppo_jax.lm_head.inputs import VocabularyConfig
from dppo_jax.models import cpu_bfloat16
from dppo_jax.parallel import VocabularyAxes
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.programs.parts import (
  ModelParts,
  Parts,
  complete,
  keeps_hidden,
)
from dppo_jax.sampling import continuous, decode, growing_cache

_MIN_COMPILE_TIME = 'jax_persistent_cache_min_compile_time_secs'

T = TypeVar('T')
SampleFn = Callable[[Params, Prompts, Array], Rollout]
BatchFn = Callable[
  [Rollout, Array, TokenStats | None, TokenStats | None], tuple[Batch, Metrics]
]


@dataclasses.dataclass(frozen=True)
class Program(Generic[T]):
  """A jitted function whose first argument, the base, is filled in.

  An argument, not a constant of the program: weights of many GiB would be
  compiled into it.

  Attributes:
    jitted: (base, *arguments) -> T.
    base: frozen weights under an adapter, maybe abstract; None without any.
  """

  jitted: Any
  base: Params | None

  def __call__(self, *arguments: Any) -> T:
    """The value at arrays."""
    return self.jitted(self.base, *arguments)

  def lower(self, *arguments: Any) -> Any:
    """A `jax.stages.Lowered`, for arrays or for shapes with shardings."""
    return self.jitted.lower(self.base, *arguments)

  def shapes(self, *arguments: Any) -> T:
    """Shapes and dtypes of the value, for arrays or for shapes."""
    return jax.eval_shape(self.jitted, self.base, *arguments)


@dataclasses.dataclass(frozen=True)
class GrowingSampler(Program[Rollout]):
  """A sampler in stages; lowered, it is one program with the widest cache.

  Attributes:
    start: (base, params, prompts, key, columns) -> state.
    run: (base, params, prompts, key, state) -> (state, whether tokens are
      missing); the state passed in is consumed.
    finish: (prompts, state) -> the rollout.
    widths: of the cache, from stage to stage.
  """

  start: Any
  run: Any
  finish: Any
  widths: tuple[int, ...]

  def __call__(self, *arguments: Any) -> Rollout:
    """The rollout of (params, prompts, key)."""
    state = self.start(self.base, *arguments, self.widths[0])
    for width in self.widths:
      if width > self.widths[0]:
        state = growing_cache.grow(state, width)
      state, goes_on = self.run(self.base, *arguments, state)
      if not goes_on:
        break
    _, prompts, _ = arguments
    rollout: Rollout = self.finish(prompts, state)
    return rollout


@dataclasses.dataclass(frozen=True)
class StepProgram:
  """The compiled train step.

  Attributes:
    jitted: (state, batch, (anchor's head or None, base)) -> outcome.
    base: as of a `Program`.
  """

  jitted: Any
  base: Params | None

  def __call__(
    self, state: TrainState, batch: Any, anchor_head: Array | None = None
  ) -> tuple[Any, ...]:
    """(state, metrics), and a StepRecord where the step was so compiled.

    Args:
      state: donated.
      batch: a Batch, or what the phase before learns from.
      anchor_head: [V, D], for a divergence of whole distributions.
    """
    return self.jitted(state, batch, (anchor_head, self.base))

  def lower(
    self, state: TrainState, batch: Any, anchor_head: Array | None = None
  ) -> Any:
    """A `jax.stages.Lowered`, for arrays or for shapes with shardings."""
    return self.jitted.lower(state, batch, (anchor_head, self.base))


def vocabulary_axes(mesh: Mesh) -> VocabularyAxes:
  """Which mesh axes split rows, and which the vocabulary."""
  return VocabularyAxes(mesh, parallel.BATCH_AXES, parallel.VOCAB_AXIS)


def vocabulary_layout(
  experiment: Experiment, mesh: Mesh, temperature: float
) -> VocabularyConfig:
  """How the trainer runs the head over the vocabulary."""
  rows = experiment.learner.head_chunk_tokens
  if not rows:
    kind = mesh.devices.flat[0].device_kind
    columns = -(-experiment.model.vocab_size // mesh.shape['tensor'])
    rows = hardware.head_chunk_tokens(kind, columns)
  return VocabularyConfig(
    axes=vocabulary_axes(mesh), head_chunk_tokens=rows, temperature=temperature
  )


def compile_anchor_head(parts: ModelParts) -> Program[Array]:
  """params -> a copy of their head [V, D], split as the trainer reads it."""

  def head(base: Params | None, params: Params) -> Array:
    return jnp.copy(parts.policy.head(complete(parts, base, params)))

  compiled = jax.jit(
    head,
    in_shardings=(None, parts.shardings.params),
    out_shardings=parallel.head_sharding(parts.mesh),
  )
  return Program(compiled, parts.base)


def compile_sampler(
  parts: ModelParts, config: decode.SamplingConfig
) -> Program[Rollout]:
  """(params, prompts, key) -> Rollout, compiled and sharded.

  With `config.cache_columns` it runs in stages between which the KV cache
  grows, and asks after each whether a row goes on.
  """
  axes = vocabulary_axes(parts.mesh)

  def sample(
    base: Params | None, params: Params, prompts: Prompts, key: Array
  ) -> Rollout:
    params = complete(parts, base, params)
    return continuous.sample(parts.policy, axes, config, params, prompts, key)

  compiled = jax.jit(
    sample,
    in_shardings=(
      None,  # Where it is.
      parts.shardings.params,
      parts.batch_sharding,
      parallel.replicated(parts.mesh),
    ),
    out_shardings=parts.batch_sharding,
  )
  widths = growing_cache.widths(
    config.cache_columns,
    config.max_completion_length,
    cpu_bfloat16.platform_of(parts.mesh),
  )
  if len(widths) == 1:
    return Program(compiled, parts.base)
  return GrowingSampler(compiled, parts.base, *_stages(parts, config), widths)


def _stages(
  parts: ModelParts, config: decode.SamplingConfig
) -> tuple[Any, Any, Any]:
  """The programs `start`, `run` and `finish` of a `GrowingSampler`."""
  stages = growing_cache.stages(
    parts.policy, vocabulary_axes(parts.mesh), config
  )
  given = (
    None,  # Where it is.
    parts.shardings.params,
    parts.batch_sharding,
    parallel.replicated(parts.mesh),
  )

  def start(
    base: Params | None, params: Params, prompts: Prompts, key: Array, size: int
  ) -> Any:
    return stages.start(complete(parts, base, params), prompts, key, size)

  def sample(
    base: Params | None,
    params: Params,
    prompts: Prompts,
    key: Array,
    state: Any,
  ) -> tuple[Any, Array]:
    whole = complete(parts, base, params)
    state = stages.run(whole, prompts, key, state)
    return state, stages.unfinished(prompts, state)

  return (
    jax.jit(start, in_shardings=given, static_argnums=4),
    jax.jit(
      sample,
      in_shardings=(*given, None),
      out_shardings=(None, parallel.replicated(parts.mesh)),
      donate_argnums=4,
    ),
    jax.jit(stages.finish, out_shardings=parts.batch_sharding),
  )


def compile_scorer(
  parts: ModelParts, experiment: Experiment
) -> Program[TokenStats]:
  """(params, rollout) -> stats of those parameters at its tokens."""
  loss = experiment.loss
  layout = vocabulary_layout(experiment, parts.mesh, loss.temperature)

  count = (
    experiment.learner.num_minibatches * experiment.learner.num_microbatches
  )

  def score(
    base: Params | None, params: Params, rollout: Rollout
  ) -> TokenStats:
    # Rows may be run without their last columns, which verdicts have not.
    rollout = dataclasses.replace(rollout, conversation=None)
    score_part = functools.partial(
      scoring.score,
      parts.policy,
      layout,
      complete(parts, base, params),
      prompt_length=loss.prompt_length,
      shared_rows=loss.shared_rows,
      with_entropy=False,
      with_hidden=keeps_hidden(experiment),
    )
    stats = scoring.by_parts(
      parts.mesh, count, experiment.learner.buckets, score_part, rollout
    )
    return scoring.aligned(stats, rollout.completion_mask)

  compiled = jax.jit(
    score,
    in_shardings=(None, parts.shardings.params, parts.batch_sharding),
    out_shardings=parts.batch_sharding,
  )
  return Program(compiled, parts.base)


def compile_batcher(parts: ModelParts, experiment: Experiment) -> BatchFn:
  """(rollout, rewards, recomputed, reference) -> (batch, metrics)."""
  group_size = experiment.sampling.group_size

  def build(
    rollout: Rollout,
    rewards: Array,
    recomputed: TokenStats | None,
    reference: TokenStats | None,
  ) -> tuple[Batch, Metrics]:
    batch = batches.make_batch(
      rollout,
      rewards,
      group_size=group_size,
      estimator=experiment.advantages.estimator,
      recomputed=recomputed,
      reference=reference,
    )
    if experiment.rewards.truncated == 'mask':
      batch = batches.keep_rows(batch, ~rollout.truncated)
    return batch, batches.rollout_metrics(
      rollout, rewards, group_size, experiment.environment.max_turns
    )

  return jax.jit(
    build,
    in_shardings=parts.batch_sharding,
    out_shardings=(parts.batch_sharding, parallel.replicated(parts.mesh)),
  )


def compile_group_choice(
  parts: Parts, experiment: Experiment
) -> Callable[[Batch, Array], Batch]:
  """(batch, kept groups) -> batch without the others."""
  size = experiment.sampling.group_size
  return jax.jit(
    functools.partial(batches.keep_groups, group_size=size),
    out_shardings=parts.batch_sharding,
  )


def use_compilation_cache(folder: str) -> None:
  """Keeps compiled programs in a user folder; '' keeps none.

  Raises:
    ValueError: the folder cannot be made.
  """
  if not folder:
    return
  path = pathlib.Path(os.path.expanduser(folder))
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ValueError(
      f'compilation_cache: cannot make {path} ({error.strerror}); name a'
      " folder you own, or '' to keep no compiled programs."
    ) from error
  jax.config.update('jax_compilation_cache_dir', str(path))
  if _MIN_COMPILE_TIME.upper() not in os.environ:  # The user's word stands.
    jax.config.update(_MIN_COMPILE_TIME, 0.01)


def compile_step(
  experiment: Experiment, parts: ModelParts, *, recording: bool = False
) -> StepProgram:
  """(state, batch, anchor's head) -> (state, metrics), compiled and sharded.

  Args:
    experiment: the run.
    parts: its parts, frozen weights loaded.
    recording: whether the outcome has a StepRecord, for the ledger.
  """
  loss = experiment.loss
  exact = keeps_hidden(experiment)
  learner = Learner(
    loss_fn=functools.partial(
      policy_loss,
      parts.policy,
      vocabulary_layout(experiment, parts.mesh, loss.temperature),
      loss,
      adapter_scale=parts.adapter_scale,
      with_top_k=recording,
    ),
    metrics_fn=functools.partial(
      trust_region_metrics,
      num_minibatches=experiment.learner.num_minibatches,
      max_turns=min(experiment.environment.max_turns, batches.MAX_TURNS_SHOWN),
    ),
    optimizer=parts.optimizer,
    config=experiment.learner,
    mesh=parts.mesh,
  )
  compiled = compile_train_step(
    learner,
    parts.shardings,
    recorded=recording,
    shared=(parallel.head_sharding(parts.mesh) if exact else None, None),
  )
  return StepProgram(compiled, parts.base)
