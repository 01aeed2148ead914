"""The parts of a run, built once from an Experiment."""

import dataclasses

import jax
from jax.sharding import Mesh, NamedSharding
import optax

from dppo_jax import parallel
from dppo_jax.base import Params, Tokenizer, TrainState
from dppo_jax.data import tasks
from dppo_jax.data.prompt_stream import PromptStream
from dppo_jax.learner import movement
from dppo_jax.learner import state as state_lib
from dppo_jax.learner.optimizer import make_optimizer
from dppo_jax.models import lora
from dppo_jax.models import policy as policy_lib
from dppo_jax.parallel import Devices
from dppo_jax.runtime import activity
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.config.tokenizer import open_tokenizer
from dppo_jax.runtime.programs import datasets


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelParts:
  """The parts that need neither data nor a tokenizer.

  Attributes:
    mesh: devices.
    policy: the model.
    optimizer: of reinforcement learning, not of SFT.
    abstract_state: shapes, dtypes and shardings of its state.
    base: frozen weights under an adapter; None until
      `base_weights.with_base`, and where everything trains.
    base_fingerprint: names their bits; '' where there are none.
    adapter_scale: of what the adapter adds; None where everything trains.
    batch_sharding: where rows live.
  """

  mesh: Mesh
  policy: policy_lib.Policy
  optimizer: optax.GradientTransformation
  abstract_state: TrainState
  base: Params | None
  base_fingerprint: str
  adapter_scale: float | None
  batch_sharding: NamedSharding

  @property
  def shardings(self) -> TrainState:
    """Where its state lives."""
    return state_lib.shardings_of(self.abstract_state)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts(ModelParts):
  """The parts that the phases of a run share.

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
  mesh = mesh_of(experiment, devices)
  policy = trained_policy(experiment, mesh)
  optimizer = make_optimizer(experiment.optimizer)
  return ModelParts(
    mesh=mesh,
    policy=policy,
    optimizer=optimizer,
    abstract_state=state_lib.abstract_state(policy, optimizer, mesh),
    base=None,
    base_fingerprint='',
    adapter_scale=experiment.lora.scale if experiment.lora else None,
    batch_sharding=parallel.batch_sharding(mesh),
  )


def assemble(experiment: Experiment, devices: Devices = None) -> Parts:
  """Prepares the data and builds the policy; places nothing on a device.

  Args:
    experiment: the run.
    devices: of `mesh_of`.

  Raises:
    ValueError: the data or the tokenizer cannot be used.
  """
  with activity.under_way('reading the tokenizer'):
    tokenizer = open_tokenizer(
      vars(experiment.data), experiment.model.vocab_size
    )

  def stream(prepared: datasets.Prepared) -> PromptStream:
    with activity.under_way(f'encoding {len(prepared.examples):,} prompts'):
      return datasets.open_stream(experiment, tokenizer, prepared)

  trained, held_out = datasets.prepare(experiment)
  return Parts(
    **vars(assemble_model(experiment, devices)),
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
  """Parameters that the policy takes: those that train, over the frozen base.

  Args:
    parts: of the run.
    base: `parts.base`, as an argument of a compiled function.
    params: as in a TrainState.

  Raises:
    ValueError: there is an adapter, and no base was loaded.
  """
  return policy_lib.with_base(base, params, parts.adapter_scale)


def mesh_of(experiment: Experiment, devices: Devices) -> Mesh:
  """The mesh of a run.

  Args:
    experiment: the run.
    devices: to lay it over, which need not be here; None for the first
      `experiment.num_devices` of those that are.

  Raises:
    ValueError: there are fewer.
  """
  if devices is None:
    devices = jax.devices()[: experiment.num_devices]
  return parallel.make_mesh(
    **dataclasses.asdict(experiment.mesh), devices=devices
  )


def keeps_hidden(experiment: Experiment) -> bool:
  """Whether the loss compares whole distributions."""
  return movement.keeps_hidden(experiment.loss)
