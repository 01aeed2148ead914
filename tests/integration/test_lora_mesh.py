"""An adapter over eight devices: the step is that of one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.learner import state as state_lib
from dppo_jax.runtime.programs import base_weights, compiled
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.programs import state as programs_state
from dppo_jax.runtime.rollouts import weight_sync
from tests.support import factories, published, runs

pytestmark = pytest.mark.slow

_ATTENTION = ('q_proj', 'k_proj', 'v_proj', 'o_proj')


def _settings(name, sizes, **overrides):
  mesh = dict(zip(('data', 'fsdp', 'tensor'), sizes, strict=True))
  return runs.smallest(
    **{f'mesh__{axis}': size for axis, size in mesh.items()},
    model__pretrained=str(published.MODELS / name),
    lora__rank=2,
    optimizer__learning_rate=1e-2,
    **overrides,
  )


def _step(name, sizes, **overrides):
  """(adapter before, after, metrics, its shardings) of one update."""
  num_devices = int(np.prod(sizes))
  settings = _settings(name, sizes, **overrides)
  experiment = runs.experiment(settings, num_devices)
  with runs.quick_compilation():
    parts = base_weights.with_base(experiment, parts_lib.assemble(experiment))
    before = [np.asarray(x).tobytes() for x in jax.tree.leaves(parts.base)]
    rng = np.random.default_rng(0)
    # B of a new adapter is zero, and with it the gradient of A.
    adapter = jax.tree.map(
      lambda leaf: jax.device_put(
        jnp.asarray(0.1 * rng.standard_normal(leaf.shape), jnp.float32),
        leaf.sharding,
      ),
      programs_state.abstract_params(experiment),
    )
    state = state_lib.adopt(parts.optimizer, adapter, parts.shardings, 0)
    batch = factories.make_batch(4, 2, 6, 7)
    state, metrics = compiled.compile_step(experiment, parts)(
      state, batch, None
    )
    after = [np.asarray(x).tobytes() for x in jax.tree.leaves(parts.base)]
  assert before == after  # Neither changed nor donated.
  return state, jax.device_get(metrics), parts


_single = functools.cache(functools.partial(_step, sizes=(1, 1, 1)))


@pytest.mark.parametrize(
  ('name', 'targets'),
  [
    ('qwen3_gqa', (*_ATTENTION, 'gate', 'up', 'down')),
    ('qwen3_moe', _ATTENTION),
  ],
)
def test_eight_devices_step_like_one(name, targets):
  alone, alone_metrics, _ = _single(name, lora__targets=targets)
  state, metrics, parts = _step(name, (2, 2, 2), lora__targets=targets)
  for key, expected in alone_metrics.items():
    np.testing.assert_allclose(
      metrics[key], expected, rtol=2e-4, atol=1e-5, err_msg=key
    )
  assert factories.relative_distance(state.params, alone.params) < 1e-4
  specs = jax.tree.map(lambda s: s.spec, parts.shardings.params)
  got = jax.tree.map(lambda leaf: leaf.sharding.spec, state.params)
  assert got == specs


def test_the_anchor_head_is_that_of_the_base():
  settings = _settings('qwen3_gqa', (1, 1, 1), sampling__precision='fp8')
  experiment = runs.experiment(settings)
  with runs.quick_compilation():
    parts = base_weights.with_base(experiment, parts_lib.assemble(experiment))
    state = state_lib.init_state(
      parts.policy, parts.optimizer, parts.shardings, 0
    )
    handed = weight_sync.compile_weight_sync(parts, experiment)
    copy_head = compiled.compile_anchor_head(handed.parts)
    head = copy_head(handed(state.params))
  base = np.asarray(parts.base['head'])
  error = np.abs(np.asarray(head) - base)
  assert 0 < error.max() < np.abs(base).max() / 10
