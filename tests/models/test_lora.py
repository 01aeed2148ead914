import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.models import lora
from dppo_jax.models.policy import AdaptedParams, make_policy
from dppo_jax.sampling import decode
from tests.support import factories

_ALL = tuple(lora.TARGETS)


def _config(**overrides):
  return lora.LoraConfig(
    **{'rank': 3, 'alpha': 6.0, 'targets': _ALL, **overrides}
  )


@functools.cache
def _new(model, config):
  init = lora.adapt(make_policy(model), config).init
  return nn.unbox(jax.jit(init)(jax.random.PRNGKey(0)))


def _adapted(model, config):
  """Parameters whose adapter changes every output a lot."""
  rng = np.random.default_rng(0)
  adapter = jax.tree.map(
    lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype),
    _new(model, config),
  )
  base = factories.make_params(model)
  return AdaptedParams(base=base, adapter=adapter, scale=config.scale)


@functools.cache
def _apply(model):
  return jax.jit(make_policy(model).apply)


def _hidden(model, params):
  prompts = factories.make_prompts(3, 6)
  return np.asarray(_apply(model)(params, prompts.tokens, prompts.mask))


def test_a_new_adapter_changes_nothing():
  model = factories.transformer_config(qkv_bias=True)
  params = AdaptedParams(
    base=factories.make_params(model),
    adapter=_new(model, _config()),
    scale=2.0,
  )
  np.testing.assert_allclose(
    _hidden(model, params), _hidden(model, params.base), atol=1e-6
  )


def test_shapes_and_first_values():
  model = factories.transformer_config()
  layers = _new(model, _config())['layers']
  shapes = jax.tree.map(lambda x: x.shape, layers)
  assert shapes == {
    'attention': {
      'query': {'lora_a': (2, 16, 3), 'lora_b': (2, 3, 4, 6)},
      'key': {'lora_a': (2, 16, 3), 'lora_b': (2, 3, 2, 6)},
      'value': {'lora_a': (2, 16, 3), 'lora_b': (2, 3, 2, 6)},
      'output': {'lora_a': (2, 4, 6, 3), 'lora_b': (2, 3, 16)},
    },
    'mlp': {
      'gate': {'lora_a': (2, 16, 3), 'lora_b': (2, 3, 24)},
      'up': {'lora_a': (2, 16, 3), 'lora_b': (2, 3, 24)},
      'down': {'lora_a': (2, 24, 3), 'lora_b': (2, 3, 16)},
    },
  }
  drawn = []
  for part in ('attention', 'mlp'):
    for name, leaves in layers[part].items():
      assert not np.any(leaves['lora_b'])
      a = np.asarray(leaves['lora_a'])
      assert a.dtype == np.float32
      bound = 1 / math.sqrt(a.size / (2 * 3))  # Inputs: all but L and r.
      assert 0.8 * bound < np.abs(a).max() < bound, name
      drawn.append(a.ravel()[:5].tobytes())
  assert len(set(drawn)) == len(drawn)


def test_only_targets_are_adapted():
  model = factories.transformer_config()
  adapter = _new(model, _config(targets=('output', 'up')))
  assert {k: list(v) for k, v in adapter['layers'].items()} == {
    'attention': ['output'],
    'mlp': ['up'],
  }


def test_merged_weights_by_the_definition():
  model = factories.transformer_config()
  params = _adapted(model, _config())
  merged = lora.merge(params)
  for part, name, rule in (
    ('attention', 'query', 'dr,rhk->dhk'),
    ('attention', 'output', 'hkr,rd->hkd'),
    ('mlp', 'down', 'mr,rd->md'),
  ):
    leaves = params.adapter['layers'][part][name]
    for layer in range(2):
      a, b = (np.asarray(leaves[k][layer]) for k in ('lora_a', 'lora_b'))
      before = params.base['layers'][part][name]['kernel'][layer]
      # alpha / r = 2.
      expected = before + 2.0 * np.einsum(rule, a, b)
      got = merged['layers'][part][name]['kernel'][layer]
      np.testing.assert_allclose(got, expected, atol=1e-6)
  assert merged['embedding'] is params.base['embedding']


@pytest.mark.parametrize(
  'overrides',
  [
    {'qkv_bias': True},
    {'remat': 'full', 'scan_unroll': 2},
    {'num_experts': 4, 'num_layers': 4, 'mlp_only_layers': (0, 2)},
  ],
  ids=str,
)
def test_merged_and_beside_agree(overrides):
  model = factories.transformer_config(**overrides)
  targets = lora.ATTENTION_TARGETS if 'num_experts' in overrides else _ALL
  params = _adapted(model, _config(targets=targets))
  got = _hidden(model, params)
  np.testing.assert_allclose(
    got, _hidden(model, lora.merge(params)), atol=2e-5, rtol=2e-5
  )
  assert np.abs(got - _hidden(model, params.base)).max() > 0.1


@pytest.mark.slow
def test_the_cached_path_agrees():
  model = factories.transformer_config()
  params = _adapted(model, _config())
  sample = jax.jit(
    functools.partial(
      decode.sample,
      make_policy(model),
      factories.vocabulary_axes(),
      factories.sampling_config(greedy=True),
    )
  )
  prompts, key = factories.make_prompts(2, 5), jax.random.PRNGKey(0)
  beside, merged, base = (
    sample(p, prompts, key) for p in (params, lora.merge(params), params.base)
  )
  np.testing.assert_array_equal(beside.tokens, merged.tokens)
  np.testing.assert_allclose(
    beside.stats.log_probs, merged.stats.log_probs, atol=1e-5
  )
  assert np.any(beside.tokens != base.tokens)


def test_a_base_in_bfloat16_is_computed_in_float32():
  model = factories.transformer_config()
  params = _adapted(model, _config())
  narrow = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), params.base)
  wide = jax.tree.map(lambda x: x.astype(jnp.float32), narrow)
  got, expected = (
    AdaptedParams(base=base, adapter=params.adapter, scale=params.scale)
    for base in (narrow, wide)
  )
  np.testing.assert_allclose(
    _hidden(model, got), _hidden(model, expected), atol=1e-5
  )
  merged = lora.merge(got)
  assert merged['embedding'].dtype == jnp.bfloat16
  kernel = merged['layers']['mlp']['up']['kernel']
  np.testing.assert_array_equal(
    kernel, lora.merge(expected)['layers']['mlp']['up']['kernel']
  )


def test_a_lies_like_the_inputs_and_b_like_the_outputs():
  mesh = parallel.make_mesh(2, 2, 2)
  policy = lora.adapt(make_policy(factories.transformer_config()), _config())
  boxed = jax.eval_shape(policy.init, jax.random.PRNGKey(0))
  layers = parallel.tree_shardings(mesh, boxed)['layers']
  query, output = (layers['attention'][n] for n in ('query', 'output'))
  assert query['lora_a'].spec == PartitionSpec(None, 'fsdp', None)
  assert query['lora_b'].spec == PartitionSpec(None, None, 'tensor', None)
  assert output['lora_a'].spec == PartitionSpec(None, 'tensor', None, None)
  assert output['lora_b'].spec == PartitionSpec(None, None, 'fsdp')
