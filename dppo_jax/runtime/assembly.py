"""The parts of a run, built once from an Experiment."""

from collections.abc import Callable
import dataclasses
import functools
import os
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
import optax

from dppo_jax import hardware, parallel
from dppo_jax.base import (
  Array,
  Batch,
  Metrics,
  Params,
  Prompts,
  Rollout,
  Tokenizer,
  TokenStats,
  TrainState,
)
from dppo_jax.data import tasks
from dppo_jax.data.prompts import PromptStream
from dppo_jax.learner import batches, scoring
from dppo_jax.learner import state as state_lib
from dppo_jax.learner.optimizer import make_optimizer
from dppo_jax.models import lora
from dppo_jax.models import policy as policy_lib
from dppo_jax.ops.divergences import DIVERGENCES
from dppo_jax.ops.vocabulary_pass import VocabularyConfig
from dppo_jax.ops.vocabulary_shard import VocabularyAxes
from dppo_jax.parallel import Devices
from dppo_jax.runtime import adapter_files, datasets, pretrained
from dppo_jax.runtime.config import Experiment
from dppo_jax.runtime.vocabulary import open_tokenizer
from dppo_jax.sampling import decode, refill

SampleFn = Callable[[Params, Prompts, Array], Rollout]
ScoreFn = Callable[[Params, Rollout], TokenStats]
BatchFn = Callable[
  [Rollout, Array, TokenStats | None, TokenStats | None], tuple[Batch, Metrics]
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelParts:
  """What needs neither data nor a tokenizer.

  Attributes:
    mesh: devices.
    policy: the model.
    optimizer: of the reinforcement phase.
    shardings: where its state lives.
    base: frozen weights under an adapter; None until `frozen.with_base`, and
      where everything trains.
    base_fingerprint: names their bits; '' where there are none.
    adapter_scale: of what the adapter adds; None where everything trains.
    batch_sharding: where rows live.
  """

  mesh: Mesh
  policy: policy_lib.Policy
  optimizer: optax.GradientTransformation
  shardings: TrainState
  base: Params | None
  base_fingerprint: str
  adapter_scale: float | None
  batch_sharding: NamedSharding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts(ModelParts):
  """What the phases of a run share.

  Attributes:
    task: of the demonstrations.
    tokenizer: of the policy.
    prompts: the stream to train on.
    held_out: the split to evaluate on.
  """

  task: tasks.Task
  tokenizer: Tokenizer
  prompts: PromptStream
  held_out: PromptStream


def assemble_model(
  experiment: Experiment, devices: Devices = None
) -> ModelParts:
  """Builds the policy and its optimizer; places nothing on `devices`."""
  mesh = _mesh(experiment, devices)
  policy = trained_policy(experiment, mesh)
  optimizer = make_optimizer(experiment.optimizer)
  return ModelParts(
    mesh=mesh,
    policy=policy,
    optimizer=optimizer,
    shardings=state_lib.state_shardings(policy, optimizer, mesh),
    base=None,
    base_fingerprint='',
    adapter_scale=experiment.lora.scale if experiment.lora else None,
    batch_sharding=parallel.batch_sharding(mesh),
  )


def assemble(experiment: Experiment) -> Parts:
  """Prepares the data and builds the policy; places nothing on a device."""
  tokenizer = open_tokenizer(vars(experiment.data), experiment.model.vocab_size)

  def stream(prepared: datasets.Prepared) -> PromptStream:
    return datasets.open_stream(experiment, tokenizer, prepared)

  trained, held_out = datasets.prepare(experiment)
  return Parts(
    **vars(assemble_model(experiment)),
    task=tasks.find_task(experiment.data.task),
    tokenizer=tokenizer,
    prompts=stream(trained),
    held_out=stream(held_out),
  )


def trained_policy(
  experiment: Experiment, mesh: Mesh | None = None
) -> policy_lib.Policy:
  """The policy, whose `init` makes what trains: everything, or an adapter."""
  policy = policy_lib.make_policy(experiment.model, mesh)
  return lora.adapt(policy, experiment.lora) if experiment.lora else policy


def complete(parts: ModelParts, base: Params | None, params: Params) -> Params:
  """What the policy takes: what trains, and the base below it.

  Args:
    parts: of the run.
    base: `parts.base`, as an argument of a compiled function.
    params: as in a TrainState.

  Raises:
    ValueError: there is an adapter, and no base was loaded.
  """
  if parts.adapter_scale is None:
    return params
  if base is None:
    raise ValueError(
      'lora.rank: the frozen weights are not loaded; pass the parts through'
      ' frozen.with_base first.'
    )
  return policy_lib.AdaptedParams(
    base=base, adapter=params, scale=parts.adapter_scale
  )


def initial_state(
  experiment: Experiment,
  parts: ModelParts,
  optimizer: optax.GradientTransformation,
  shardings: TrainState,
) -> TrainState:
  """State at step 0: pretrained parameters, or random ones.

  Of an adapter alone where there is one.

  Args:
    experiment: the run.
    parts: its parts.
    optimizer: of the phase to come.
    shardings: of its state.

  Raises:
    ValueError: the pretrained weights are not those of the model, or damaged.
  """
  adapted = experiment.lora is not None
  source = experiment.adapter if adapted else experiment.pretrained
  if not source:
    return state_lib.init_state(
      parts.policy, optimizer, shardings, experiment.seed
    )
  folder = pathlib.Path(source).expanduser()
  like = abstract_params(experiment)
  try:
    if experiment.lora is not None:
      params = adapter_files.load_adapter(folder, experiment.lora, like)
    else:
      params = pretrained.load_params(folder, like)
  except ValueError as error:
    section = 'lora' if adapted else 'model'
    raise ValueError(f'{section}.pretrained: {error}') from error
  return state_lib.adopt(optimizer, params, shardings, experiment.seed)


def abstract_state(parts: ModelParts) -> TrainState:
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
  """Shapes, dtypes and shardings of what trains; needs no data set."""
  return _abstract(experiment, trained_policy(experiment))


def abstract_policy(experiment: Experiment, devices: Devices = None) -> Params:
  """Those of all weights but an adapter's, as if they trained."""
  policy = policy_lib.make_policy(experiment.model)
  return _abstract(experiment, policy, devices)


def _mesh(experiment: Experiment, devices: Devices) -> Mesh:
  where: Any = {} if devices is None else {'devices': devices}
  return parallel.make_mesh(**dataclasses.asdict(experiment.mesh), **where)


def _abstract(
  experiment: Experiment,
  policy: policy_lib.Policy,
  devices: Devices = None,
) -> Params:
  mesh = _mesh(experiment, devices)
  boxed = jax.eval_shape(policy.init, jax.random.PRNGKey(0))
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    nn.unbox(boxed),
    parallel.tree_shardings(mesh, boxed),
  )


def vocabulary_axes(mesh: Mesh) -> VocabularyAxes:
  """Which mesh axes split rows, and which the vocabulary."""
  return VocabularyAxes(mesh, parallel.BATCH_AXES, parallel.VOCAB_AXIS)


def vocabulary_layout(
  experiment: Experiment, mesh: Mesh, temperature: float
) -> VocabularyConfig:
  """How the trainer runs the head over the vocabulary."""
  rows = experiment.chunk_rows
  if not rows:
    kind = mesh.devices.flat[0].device_kind
    columns = -(-experiment.model.vocab_size // mesh.shape['tensor'])
    rows = hardware.chunk_rows(kind, columns)
  return VocabularyConfig(
    axes=vocabulary_axes(mesh), chunk_rows=rows, temperature=temperature
  )


def keeps_hidden(experiment: Experiment) -> bool:
  """Whether the divergence compares whole distributions."""
  return DIVERGENCES[experiment.loss.divergence].records == 'hidden'


def compile_anchor_head(parts: ModelParts) -> Callable[[Params], Array]:
  """params -> a copy of their head [V, D], split as the trainer reads it."""

  def head(base: Params | None, params: Params) -> Array:
    return jnp.copy(parts.policy.head(complete(parts, base, params)))

  compiled = jax.jit(
    head,
    in_shardings=(None, parts.shardings.params),
    out_shardings=parallel.head_sharding(parts.mesh),
  )
  return functools.partial(compiled, parts.base)


def compile_sampler(
  parts: ModelParts, config: decode.SamplingConfig
) -> SampleFn:
  """(params, prompts, key) -> Rollout, compiled and sharded."""
  axes = vocabulary_axes(parts.mesh)

  def sample(
    base: Params | None, params: Params, prompts: Prompts, key: Array
  ) -> Rollout:
    params = complete(parts, base, params)
    return refill.sample(parts.policy, axes, config, params, prompts, key)

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
  return functools.partial(compiled, parts.base)


def compile_scorer(parts: ModelParts, experiment: Experiment) -> ScoreFn:
  """(params, rollout) -> stats of those parameters at its tokens."""
  loss = experiment.loss
  layout = vocabulary_layout(experiment, parts.mesh, loss.temperature)

  count = experiment.step.num_minibatches * experiment.step.num_microbatches

  def score(
    base: Params | None, params: Params, rollout: Rollout
  ) -> TokenStats:
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
    stats = scoring.by_parts(parts.mesh, count, score_part, rollout)
    return scoring.aligned(stats, rollout.completion_mask)

  compiled = jax.jit(
    score,
    in_shardings=(None, parts.shardings.params, parts.batch_sharding),
    out_shardings=parts.batch_sharding,
  )
  return functools.partial(compiled, parts.base)


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
      estimator=experiment.estimator,
      recomputed=recomputed,
      reference=reference,
    )
    if experiment.truncated == 'mask':
      batch = batches.keep_rows(batch, ~rollout.truncated)
    return batch, batches.rollout_metrics(rollout, rewards, group_size)

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
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.3)
