"""Shapes that pass between the programs of a step, with shardings."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dppo_jax import parallel
from dppo_jax.base import Prompts
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.programs import compiled as compiled_lib
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.rollouts import weight_sync


def scores(experiment: Experiment) -> tuple[bool, bool]:
  """Whether the anchor is recomputed, and whether there is a reference."""
  loss = experiment.loss
  return loss.anchor == 'recomputed', bool(loss.kl_coefficient)


def _rows(shape: tuple[int, ...], dtype: Any, mesh: Mesh) -> Any:
  where = parallel.batch_sharding(mesh)
  return jax.ShapeDtypeStruct(shape, dtype, sharding=where)


def spread(tree: Any, mesh: Mesh) -> Any:
  """Shapes of a tree, its rows split over the batch axes."""
  return jax.tree.map(lambda leaf: _rows(leaf.shape, leaf.dtype, mesh), tree)


def prompts(experiment: Experiment, mesh: Mesh) -> Prompts:
  """Shapes of a step's prompts, split over the batch axes."""
  data = experiment.data
  shape = (data.num_prompts, data.max_prompt_length)
  return Prompts(
    tokens=_rows(shape, jnp.int32, mesh),
    mask=_rows(shape, jnp.bool_, mesh),
    example_id=_rows(shape[:1], jnp.int32, mesh),
  )


def batch(
  experiment: Experiment,
  parts: parts_lib.ModelParts,
  rollout: Any,
  scored: Any,
) -> Any:
  """Shapes of the training batch of a rollout and its scores."""
  stats = spread(scored, parts.mesh)
  recompute, refer = scores(experiment)
  batch, _ = jax.eval_shape(
    compiled_lib.compile_batcher(parts, experiment),
    rollout,
    _rows(rollout.truncated.shape, jnp.float32, parts.mesh),
    stats if recompute else None,
    stats if refer else None,
  )
  return spread(batch, parts.mesh)


def anchor_head(
  experiment: Experiment,
  parts: parts_lib.ModelParts,
  handed: weight_sync.WeightSync,
  params: Any,
) -> Any:
  """Shape of the anchor's LM head, where whole distributions are compared."""
  if not parts_lib.keeps_hidden(experiment):
    return None
  if experiment.loss.anchor == 'rollout':
    parts, params = handed.parts, handed.abstract_weights
  head = compiled_lib.compile_anchor_head(parts).shapes(params)
  where = parallel.head_sharding(parts.mesh)
  return jax.ShapeDtypeStruct(head.shape, head.dtype, sharding=where)
