"""Times a DPPO update against a cross-entropy update of the same model.

python -m experiments.bench.train_step --config=configs/quickstart.py
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import pathlib
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp
from ml_collections import config_flags
import numpy as np

from dppo_jax import hardware
from dppo_jax.base import Batch, Demonstrations, TokenStats
from dppo_jax.configs import quickstart
from dppo_jax.experiments.bench import timing
from dppo_jax.learner.loss import imitation_loss
from dppo_jax.learner.train_step import Learner, compile_train_step
from dppo_jax.runtime import cli
from dppo_jax.runtime.config.build import build_experiment
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.programs import compiled
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.programs import state as state_lib

# Flags are defined only as a command: other benchmarks import this module.
if __name__ == '__main__':
  _CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Model and batch; the quickstart.'
  )
  _REPEATS = flags.DEFINE_integer('repeats', 10, 'Rounds.')
  _NAME = flags.DEFINE_string('name', 'quickstart', 'Part of the file name.')
  _OUT = flags.DEFINE_string('out', 'experiments/bench/results', 'Folder.')


def main() -> int:
  """Measures, prints and writes; returns the exit code."""
  experiment = build(_CONFIG.value or quickstart.get_config())
  found = timing.compare(make_variants(experiment), _REPEATS.value)
  result = results(experiment, found)
  rows = [('', ''), *((name, f'{value:.4g}') for name, value in result.items())]
  print(timing.table(rows))
  result |= {name: time._asdict() for name, time in found.items()}
  where = pathlib.Path(_OUT.value)
  print('Result:', timing.write(where, f'train_step-{_NAME.value}', result))
  return 0


def results(
  experiment: Experiment, found: Mapping[str, timing.Timing]
) -> dict[str, Any]:
  """Ratio, rate and MFU of the timed variants of `make_variants`."""
  flop = useful_flop(experiment)
  step, other = found[RL], found[CROSS_ENTROPY]
  result = {
    'dppo_over_cross_entropy': step.seconds / other.seconds,
    'useful_flop_per_s': flop / step.wall,
  }
  device = hardware.find_device(jax.devices()[0].device_kind)
  if device is not None:
    result['model_flop_utilization'] = flop / step.wall / device.peak
  return result


RL, CROSS_ENTROPY = 'DPPO step', 'cross-entropy step'


def build(config: Any) -> Experiment:
  """Experiment whose step is one update, on one device."""
  c: Any = config.copy_and_resolve_references()
  c.learner.num_minibatches = 1
  c.learner.share_prompt_prefix = False
  c.mesh.update(data=1, fsdp=1, tensor=1, expert=1)
  return build_experiment(c, 1)


def useful_flop(experiment: Experiment) -> float:
  """FLOP of an update: 6 per weight and token, plus causal attention.

  Recomputation, padding and the LM head on prompts do not count.
  """
  model = experiment.model
  parts = parts_lib.assemble_model(experiment)
  params = parts.abstract_state.params
  embedding = model.vocab_size * model.d_model
  weights = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
  weights -= embedding * (1 if model.tied_head else 2)
  completion = experiment.sampling.max_completion_length
  columns = experiment.loss.prompt_length + completion
  rows = experiment.data.num_prompts * experiment.data.group_size
  attention = model.num_layers * model.num_heads * model.head_dim
  layers = 6 * rows * columns * (weights + columns * attention)
  return layers + 6 * rows * completion * embedding


def make_variants(experiment: Experiment) -> Mapping[str, Callable[[], Any]]:
  """Both steps on random tokens; each keeps its own state."""
  parts = parts_lib.assemble_model(experiment)
  batch = _batch(experiment)
  layout = compiled.vocabulary_layout(experiment, parts.mesh, 1.0)
  learner = Learner(
    loss_fn=functools.partial(
      imitation_loss, parts.policy, layout, experiment.loss.prompt_length
    ),
    metrics_fn=lambda batch, record: {},
    optimizer=parts.optimizer,
    config=experiment.learner,
    mesh=parts.mesh,
  )
  imitate = compile_train_step(learner, parts.shardings)
  demonstrations = Demonstrations(
    tokens=batch.tokens,
    token_mask=batch.token_mask,
    completion_mask=batch.completion_mask,
  )
  reinforce = compiled.compile_step(experiment, parts)
  return {
    RL: _repeat(experiment, parts, functools.partial(_take, reinforce), batch),
    CROSS_ENTROPY: _repeat(
      experiment, parts, functools.partial(_take, imitate), demonstrations
    ),
  }


def _take(step: Callable[..., Any], state: Any, batch: Any) -> Any:
  return step(state, batch)[0]


def _repeat(
  experiment: Experiment,
  parts: parts_lib.ModelParts,
  step: Callable[[Any, Any], Any],
  batch: Any,
) -> Callable[[], Any]:
  held = [
    state_lib.initial_state(experiment, parts, parts.optimizer, parts.shardings)
  ]

  def run() -> Any:
    held[0] = step(held[0], batch)
    return held[0].step

  return run


def _batch(experiment: Experiment) -> Batch:
  """Batch of full-length random tokens from a uniform distribution."""
  key = jax.random.PRNGKey(0)
  size = experiment.model.vocab_size
  first = experiment.loss.prompt_length
  columns = first + experiment.sampling.max_completion_length
  rows = experiment.data.num_prompts * experiment.data.group_size
  shape = (rows, columns)
  mask = jnp.broadcast_to(jnp.arange(columns) >= first, shape)
  flat = jnp.where(mask, -jnp.log(float(size)), 0.0)
  k = experiment.sampling.top_k
  ids = jax.random.randint(key, (*shape, k), 0, size)
  stats = TokenStats(log_probs=flat)
  if k:
    top = jnp.broadcast_to(flat[..., None], ids.shape)
    stats = dataclasses.replace(stats, top_ids=ids, top_log_probs=top)
  return Batch(
    tokens=jax.random.randint(key, shape, 0, size),
    token_mask=jnp.ones(shape, bool),
    completion_mask=mask,
    advantages=jnp.where(mask, jax.random.normal(key, (rows, 1)), 0.0),
    rollout=stats,
  )


if __name__ == '__main__':
  cli.run(main)
