"""Train states: initial, and abstract (shapes and shardings alone)."""

import pathlib

import flax.linen as nn
import jax
import optax

from dppo_jax import parallel
from dppo_jax.base import Params, TrainState
from dppo_jax.learner import state as state_lib
from dppo_jax.models import policy as policy_lib
from dppo_jax.parallel import Devices
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.config.paths import config_path
from dppo_jax.runtime.hub import load_weights, peft_io
from dppo_jax.runtime.programs.parts import ModelParts, mesh_of, trained_policy


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
  source = (experiment.lora or experiment.model).pretrained
  if not source:
    return state_lib.init_state(
      parts.policy, optimizer, shardings, experiment.seed
    )
  folder = pathlib.Path(source).expanduser()
  like = abstract_params(experiment)
  if experiment.lora is not None:
    with config_path('lora.pretrained'):
      params = peft_io.load_adapter(folder, experiment.lora, like)
  else:
    with config_path('model.pretrained'):
      params = load_weights.load_params(folder, like)
  return state_lib.adopt(optimizer, params, shardings, experiment.seed)


def abstract_params(experiment: Experiment) -> Params:
  """Shapes, dtypes and shardings of what trains; needs no data set."""
  return _abstract(experiment, trained_policy(experiment))


def abstract_policy(experiment: Experiment, devices: Devices = None) -> Params:
  """Those of all weights but an adapter's, as if they trained."""
  policy = policy_lib.make_policy(experiment.model)
  return _abstract(experiment, policy, devices)


def _abstract(
  experiment: Experiment,
  policy: policy_lib.Policy,
  devices: Devices = None,
) -> Params:
  mesh = mesh_of(experiment, devices)
  boxed = jax.eval_shape(policy.init, jax.random.PRNGKey(0))
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    nn.unbox(boxed),
    parallel.tree_shardings(mesh, boxed),
  )
