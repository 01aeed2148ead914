"""The parts of a run, built once from an Experiment."""

from collections.abc import Callable
import dataclasses
import functools
import os
import pathlib

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding
import optax

from dppo_jax import parallel
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
from dppo_jax.data import builder, tasks
from dppo_jax.data.prompts import PromptStream
from dppo_jax.data.tokenizer import WordTokenizer
from dppo_jax.learner import batches, scoring
from dppo_jax.learner import state as state_lib
from dppo_jax.learner.optimizer import make_optimizer
from dppo_jax.models import policy as policy_lib
from dppo_jax.runtime import pretrained
from dppo_jax.runtime.config import Experiment
from dppo_jax.sampling import decode

SampleFn = Callable[[Params, Prompts, Array], Rollout]
ScoreFn = Callable[[Params, Rollout], TokenStats]
BatchFn = Callable[
  [Rollout, Array, TokenStats | None, TokenStats | None], tuple[Batch, Metrics]
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
  """What the phases of a run share.

  Attributes:
    task: the task.
    tokenizer: its words.
    prompts: the stream to train on.
    held_out: the split to evaluate on.
    mesh: devices.
    policy: the model.
    optimizer: of the reinforcement phase.
    shardings: where its state lives.
    batch_sharding: where rows live.
  """

  task: tasks.Task
  tokenizer: WordTokenizer
  prompts: PromptStream
  held_out: PromptStream
  mesh: Mesh
  policy: policy_lib.Policy
  optimizer: optax.GradientTransformation
  shardings: TrainState
  batch_sharding: NamedSharding


def assemble(experiment: Experiment) -> Parts:
  """Prepares the data and builds the policy; places nothing on a device."""
  data = experiment.data
  task = tasks.find_task(data.task)
  # The head of a published model is wider than the words of the task.
  words = WordTokenizer(
    tasks.fill_up(task.vocabulary, experiment.model.vocab_size)
  )
  mesh = parallel.make_mesh(**dataclasses.asdict(experiment.mesh))
  policy = policy_lib.make_policy(experiment.model, mesh)
  optimizer = make_optimizer(experiment.optimizer)

  def stream(split: str) -> PromptStream:
    return PromptStream(
      builder.load_split(data.task, split, data.data_dir),
      words,
      data.num_prompts,
      data.max_prompt_length,
      data.overlong,
      experiment.seed,
    )

  return Parts(
    task=task,
    tokenizer=words,
    prompts=stream('train'),
    held_out=stream(experiment.evaluation.split),
    mesh=mesh,
    policy=policy,
    optimizer=optimizer,
    shardings=state_lib.state_shardings(policy, optimizer, mesh),
    batch_sharding=parallel.batch_sharding(mesh),
  )


def initial_state(
  experiment: Experiment,
  parts: Parts,
  optimizer: optax.GradientTransformation,
  shardings: TrainState,
) -> TrainState:
  """State at step 0: pretrained parameters, or random ones.

  Args:
    experiment: the run.
    parts: its parts.
    optimizer: of the phase to come.
    shardings: of its state.

  Raises:
    ValueError: the pretrained weights are not those of the model, or damaged.
  """
  if not experiment.pretrained:
    return state_lib.init_state(
      parts.policy, optimizer, shardings, experiment.seed
    )
  folder = pathlib.Path(experiment.pretrained).expanduser()
  try:
    params = pretrained.load_params(folder, abstract_params(experiment))
  except ValueError as error:
    raise ValueError(f'model.pretrained: {error}') from error
  return state_lib.adopt(optimizer, params, shardings, experiment.seed)


def abstract_state(parts: Parts) -> TrainState:
  """Shapes, dtypes and shardings of the state; allocates nothing."""
  shapes = jax.eval_shape(
    lambda: state_lib.init_state(
      parts.policy, parts.optimizer, parts.shardings, 0
    )
  )
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    shapes,
    parts.shardings,
  )


def abstract_params(experiment: Experiment) -> Params:
  """Shapes, dtypes and shardings of the parameters; needs no data set."""
  mesh = parallel.make_mesh(**dataclasses.asdict(experiment.mesh))
  policy = policy_lib.make_policy(experiment.model)
  boxed = jax.eval_shape(policy.init, jax.random.PRNGKey(0))
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    nn.unbox(boxed),
    parallel.tree_shardings(mesh, boxed),
  )


def compile_sampler(parts: Parts, config: decode.SamplingConfig) -> SampleFn:
  """(params, prompts, key) -> Rollout, compiled and sharded."""
  return jax.jit(
    functools.partial(decode.sample, parts.policy, config),
    in_shardings=(
      parts.shardings.params,
      parts.batch_sharding,
      parallel.replicated(parts.mesh),
    ),
    out_shardings=parts.batch_sharding,
  )


def compile_scorer(parts: Parts, experiment: Experiment) -> ScoreFn:
  """(params, rollout) -> stats of those parameters at its tokens."""
  loss = experiment.loss

  def score(params: Params, rollout: Rollout) -> TokenStats:
    stats = scoring.score(
      parts.policy,
      params,
      rollout,
      prompt_length=loss.prompt_length,
      shared_rows=loss.shared_rows,
      temperature=loss.temperature,
      with_entropy=False,
    )
    return scoring.aligned(stats, rollout.completion_mask)

  return jax.jit(
    score,
    in_shardings=(parts.shardings.params, parts.batch_sharding),
    out_shardings=parts.batch_sharding,
  )


def compile_batcher(parts: Parts, experiment: Experiment) -> BatchFn:
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
      estimator=experiment.estimator,
      recomputed=recomputed,
      reference=reference,
    )
    return batch, batches.rollout_metrics(rollout, rewards, group_size)

  return jax.jit(
    build,
    in_shardings=parts.batch_sharding,
    out_shardings=(parts.batch_sharding, parallel.replicated(parts.mesh)),
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
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.3)
