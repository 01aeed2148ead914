"""What the sampler is given, against rounding within the sampler."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import Stream, stream_key
from dppo_jax.learner import state as state_lib
from dppo_jax.models.policy import AdaptedParams
from dppo_jax.planning.aot import hlo
from dppo_jax.runtime.programs import base_weights, compiled
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.runtime.rollouts import weight_sync
from dppo_jax.sampling.weight_noise import add_noise
from dppo_jax.sampling.weight_rounding import PRECISIONS, round_params
from tests.support import published, runs

_MOE = dict(
  model__num_experts=4,
  model__num_experts_per_tok=2,
  model__moe_intermediate_size=8,
)
_LORA = dict(
  lora__rank=2, model__pretrained=str(published.MODELS / 'qwen3_gqa')
)


def _prepare(num_devices=1, **overrides):
  """(parts, experiment, parameters, hand-over)."""
  settings = runs.smallest(**overrides)
  experiment = runs.experiment(settings, num_devices)
  with runs.quick_compilation():
    parts = base_weights.with_base(experiment, parts_lib.assemble(experiment))
    params = state_lib.init_state(
      parts.policy, parts.optimizer, parts.shardings, 0
    ).params
    if parts.base is not None:  # An adapter that changes something.
      params = jax.tree.map(lambda leaf: leaf + 0.01, params)
    handed = weight_sync.compile_weight_sync(parts, experiment)
  return parts, experiment, params, handed


def _sample(parts, config, params):
  key = stream_key(jax.random.PRNGKey(0), Stream.SAMPLE, 0)
  sampler = compiled.compile_sampler(parts, config)
  arguments = params, parts.prompts.batch(0), key
  # Without an instruction for a product and a sum: what the compiler makes of
  # the two would depend on what else stands in a program, and round otherwise.
  run = sampler.lower(*arguments).compile({'xla_cpu_max_isa': 'AVX'})
  return run(sampler.base, *arguments)


def _assert_equal(got, expected):
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_nothing_is_copied_where_nothing_changes():
  _, _, params, handed = _prepare()
  assert handed.move is None
  assert handed(params) is params
  assert handed.num_bytes == 0


@pytest.mark.parametrize('precision', [p for p in PRECISIONS if p != 'float32'])
def test_the_values_are_those_of_rounding(precision):
  _, _, params, handed = _prepare(sampling__precision=precision)
  weights = handed(params)
  expected = jax.jit(lambda tree: round_params(tree, precision))(params)
  _assert_equal(
    jax.tree.map(lambda leaf: leaf.astype(jnp.float32), weights), expected
  )
  narrow = jnp.bfloat16 if precision == 'bfloat16' else jnp.float32
  assert weights['embedding'].dtype == narrow
  kernels = weights['layers']['attention']['query']['kernel']
  assert kernels.dtype == narrow
  norms = [
    leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(weights)
    if path[-1].key == 'scale'
  ]
  assert {norm.dtype for norm in norms} == {jnp.dtype('float32')}
  like = jax.tree.map(lambda leaf: leaf.dtype, handed.abstract_weights)
  assert like == jax.tree.map(lambda leaf: leaf.dtype, weights)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('dtype', 'kind'), [('float32', _MOE), ('bfloat16', {}), ('float32', _LORA)]
)
def test_narrow_weights_sample_what_rounded_ones_do(dtype, kind):
  parts, experiment, params, handed = _prepare(
    sampling__precision='bfloat16', model__dtype=dtype, **kind
  )
  assert handed.config.precision == 'float32'
  with runs.quick_compilation():
    got = _sample(handed.parts, handed.config, handed(params))
    expected = _sample(parts, experiment.sampling, params)
  _assert_equal(got, expected)


def test_noise_belongs_to_a_version_of_the_weights():
  _, _, params, handed = _prepare(sampling__weight_noise=0.1)
  key = jax.random.PRNGKey(3)
  first, second = (
    handed(params, weight_sync.noise_key(key, step)) for step in (4, 5)
  )
  expected = add_noise(params, 0.1, stream_key(key, Stream.NOISE, 4))
  for name in ('embedding', 'final_norm'):
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-6),
      first[name],
      expected[name],
    )
  assert handed.num_bytes == 0
  assert not np.allclose(first['embedding'], second['embedding'])
  _assert_equal(handed(params, weight_sync.noise_key(key, 4)), first)


def test_noise_of_a_frozen_base_stays():
  """The adapter's is drawn for every version, the base's once a seed."""
  parts, experiment, params, handed = _prepare(
    sampling__weight_noise=0.1, **_LORA
  )
  again = weight_sync.compile_weight_sync(parts, experiment)
  _assert_equal(handed.parts.base, again.parts.base)
  own, drawn = (
    np.asarray(base['embedding']) for base in (parts.base, handed.parts.base)
  )
  moved = (drawn - own)[own != 0] / own[own != 0]
  assert moved.std() == pytest.approx(0.1, rel=0.1)
  weights = handed(params, jax.random.PRNGKey(0))
  for before, after in zip(
    jax.tree.leaves(params), jax.tree.leaves(weights), strict=True
  ):
    assert np.all(np.asarray(before) != np.asarray(after))


def test_a_frozen_base_is_handed_over_once():
  parts, _, params, handed = _prepare(sampling__precision='int8', **_LORA)
  base = handed.parts.base
  expected = jax.jit(lambda tree: round_params(tree, 'int8'))(
    AdaptedParams(base=parts.base, adapter=params, scale=1.0)
  )
  _assert_equal((base, handed(params)), (expected.base, expected.adapter))
  assert {leaf.dtype for leaf in jax.tree.leaves(handed(params))} == {
    jnp.dtype('float32')
  }
  plain = _prepare(**_LORA)
  assert plain[3].parts.base is plain[0].base
  assert plain[3].move is None


@pytest.mark.slow
def test_an_axis_is_gathered_once():
  meshes = dict(mesh__fsdp=2, mesh__tensor=2, data__num_prompts=8)
  parts, experiment, params, handed = _prepare(
    8, sampling__gather_fsdp=True, sampling__precision='bfloat16', **meshes
  )
  weights = handed(params)
  for leaf in jax.tree.leaves(weights):
    assert 'fsdp' not in str(leaf.sharding.spec)
  # Half of what is split over the two, in 16 bits.
  moved = sum(
    leaf.addressable_shards[0].data.size
    for leaf in jax.tree.leaves(params)
    if 'fsdp' in str(leaf.sharding.spec)
  )
  assert handed.num_bytes == 2 * moved > 0
  module = hlo.Module(handed.move.lower(params).compile().as_text())
  found, _ = hlo.collectives(module, {})
  assert {each.kind for each in found} == {'all-gather'}
  with runs.quick_compilation():
    got = _sample(handed.parts, handed.config, weights)
    expected = _sample(parts, experiment.sampling, params)
  np.testing.assert_array_equal(got.tokens, expected.tokens)


def test_weights_that_are_kept_outlive_the_parameters():
  _, _, params, handed = _prepare(
    sampling__lag=1, data__dynamic_sampling='resample'
  )
  before = jax.device_get(params)
  weights = handed(params)
  jax.block_until_ready(weights)
  for leaf in jax.tree.leaves(params):
    leaf.delete()
  _assert_equal(weights, before)
  assert not weight_sync.keeps_weights(
    runs.experiment(runs.smallest(sampling__lag=1))
  )
