import jax
import jax.numpy as jnp
import pytest

from dppo_jax.planning.aot import step_shapes
from dppo_jax.runtime.programs import parts as parts_lib
from tests.support import runs


def _mesh():
  experiment = runs.experiment(runs.config(mesh__data=4, mesh__tensor=2), 8)
  return experiment, parts_lib.mesh_of(experiment, None)


def test_rows_are_split_over_the_batch_axes():
  experiment, mesh = _mesh()
  prompts = step_shapes.prompts(experiment, mesh)
  assert prompts.tokens.shape == (8, 6)
  assert prompts.tokens.sharding.shard_shape((8, 6)) == (2, 6)
  assert prompts.mask.dtype == jnp.bool_
  wide = step_shapes.spread(jax.ShapeDtypeStruct((16, 3), jnp.float32), mesh)
  assert wide.sharding.shard_shape(wide.shape) == (4, 3)


@pytest.mark.parametrize(
  ('settings', 'expected'),
  [
    ({}, (False, False)),
    ({'loss__anchor': 'recomputed'}, (True, False)),
    ({'loss__kl_coefficient': 0.1}, (False, True)),
  ],
)
def test_what_is_scored(settings, expected):
  experiment = runs.changed(runs.experiment(), **settings)
  assert step_shapes.scores(experiment) == expected


def test_only_exact_divergences_need_the_head():
  experiment, _ = _mesh()
  assert step_shapes.anchor_head(experiment, None, None, None) is None
