"""SFT warm start: train on demonstrations, then restart at step 0."""

import functools

import jax
import optax

from dppo_jax.base import Demonstrations, TrainState
from dppo_jax.data import tfds_builder
from dppo_jax.data.demonstrations import DemonstrationStream
from dppo_jax.learner import state as state_lib
from dppo_jax.learner.loss import imitation_loss
from dppo_jax.learner.optimizer import make_optimizer
from dppo_jax.learner.train_step import Learner, compile_train_step
from dppo_jax.runtime import activity
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.hosts import host_rows
from dppo_jax.runtime.hosts.preemption import StopRequest
from dppo_jax.runtime.programs import state as programs_state
from dppo_jax.runtime.programs.compiled import vocabulary_layout
from dppo_jax.runtime.programs.parts import Parts
from dppo_jax.runtime.reporting import compiling
from dppo_jax.runtime.reporting.progress import Progress
from dppo_jax.runtime.sft import cache
from dppo_jax.runtime.sft.synonym_init import shared_start


def warm_start(
  experiment: Experiment, parts: Parts, stop: StopRequest
) -> TrainState:
  """Initial state of the RL phase.

  Args:
    experiment: the run.
    parts: its parts.
    stop: checked after every step.

  Returns:
    State at step 0, with the parameters after SFT, or the initial ones if
    `sft.num_steps` is 0.

  Raises:
    Preempted: stop was requested. Nothing is saved; the next run starts again.
  """
  if not experiment.sft.num_steps:
    return programs_state.initial_state(
      experiment, parts, parts.optimizer, parts.shardings
    )
  kept = cache.load(experiment, parts.abstract_state.params)
  if kept is not None:
    return state_lib.adopt(
      parts.optimizer, kept, parts.shardings, experiment.seed
    )
  state = _imitate(experiment, parts, stop)
  cache.save(experiment, state.params)
  return state_lib.restart(parts.optimizer, state, parts.shardings)


def _imitate(
  experiment: Experiment, parts: Parts, stop: StopRequest
) -> TrainState:
  """State after the last SFT step, with the optimizer of SFT."""
  config = experiment.sft
  optimizer = make_optimizer(config.optimizer)
  shardings = state_lib.shardings_of(
    state_lib.abstract_state(parts.policy, optimizer, parts.mesh)
  )
  state = programs_state.initial_state(experiment, parts, optimizer, shardings)
  state = shared_start(experiment, parts.task, state, shardings)
  learner = _make_learner(experiment, parts, optimizer)
  step_fn = compile_train_step(
    learner, shardings, shared=(None, None), name='imitate'
  )
  stream = _demonstrations(experiment, parts)
  with (
    Progress(
      config.num_steps, label='warm start', clock=compiling.clock
    ) as progress,
    activity.under_way('warm start') as note,
  ):
    for step in range(config.num_steps):
      note(f'step {step + 1} of {config.num_steps}')
      batch = host_rows.put(
        parts.batch_sharding, Demonstrations(**stream.batch(step))
      )
      state, metrics = step_fn(state, batch, (None, parts.base))
      loss = float(jax.device_get(metrics['loss/total']))
      progress.update(step + 1, {'loss': f'{loss:.3f}'})
      if stop.agreed():
        raise stop.stop(
          f'Stopped after step {step + 1} of the warm start, before the first'
          ' checkpoint. Run the same command to start again.'
        )
  return state


def _make_learner(
  experiment: Experiment,
  parts: Parts,
  optimizer: optax.GradientTransformation,
) -> Learner:
  layout = vocabulary_layout(experiment, parts.mesh, temperature=1.0)
  return Learner(
    loss_fn=functools.partial(
      imitation_loss,
      parts.policy,
      layout,
      experiment.sft.step.prompt_length,
      adapter_scale=parts.adapter_scale,
    ),
    metrics_fn=lambda batch, record: {},
    optimizer=optimizer,
    config=experiment.sft.step,
    mesh=parts.mesh,
  )


def _demonstrations(
  experiment: Experiment, parts: Parts
) -> DemonstrationStream:
  """Batches of the training split's demonstrations."""
  return DemonstrationStream(
    parts.task,
    tfds_builder.load_split(
      experiment.data.task, 'train', experiment.data.data_dir
    ),
    parts.tokenizer,
    experiment.sft.batch_size,
    experiment.data.max_prompt_length,
    experiment.sampling.max_completion_length,
    experiment.data.overlong,
    experiment.sft.noise,
    experiment.seed,
  )
