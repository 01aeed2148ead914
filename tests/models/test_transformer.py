import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.configs import default
from dppo_jax.models.layers import TransformerConfig
from dppo_jax.models.policy import make_policy
from tests.support import factories


def _names(config):
  """'a/b/c (shape)' of every parameter, without creating one."""
  shapes = jax.eval_shape(make_policy(config).init, jax.random.PRNGKey(0))
  leaves = jax.tree_util.tree_leaves_with_path(nn.unbox(shapes))
  return {
    '/'.join(key.key for key in path): (leaf.shape, str(leaf.dtype))
    for path, leaf in leaves
  }


def test_parameter_names_are_stable():
  """Checkpoints hold these names; changing one loses them."""
  config = factories.transformer_config(qkv_bias=True, tied_head=False)
  expected = {
    'embedding': (24, 16),
    'final_norm/scale': (16,),
    'head': (24, 16),
    'layers/attention/key/bias': (2, 2, 6),
    'layers/attention/key/kernel': (2, 16, 2, 6),
    'layers/attention/key_norm/scale': (2, 6),
    'layers/attention/output/kernel': (2, 4, 6, 16),
    'layers/attention/query/bias': (2, 4, 6),
    'layers/attention/query/kernel': (2, 16, 4, 6),
    'layers/attention/query_norm/scale': (2, 6),
    'layers/attention/value/bias': (2, 2, 6),
    'layers/attention/value/kernel': (2, 16, 2, 6),
    'layers/attention_norm/scale': (2, 16),
    'layers/mlp/down/kernel': (2, 24, 16),
    'layers/mlp/gate/kernel': (2, 16, 24),
    'layers/mlp/up/kernel': (2, 16, 24),
    'layers/mlp_norm/scale': (2, 16),
  }
  names = _names(config)
  assert {name: shape for name, (shape, _) in names.items()} == expected
  assert {dtype for _, dtype in names.values()} == {'float32'}


@pytest.mark.parametrize(
  ('override', 'absent'),
  [
    ({'tied_head': True}, {'head'}),
    (
      {'qkv_bias': False},
      {f'layers/attention/{name}/bias' for name in ('query', 'key', 'value')},
    ),
    (
      {'qk_norm': False},
      {f'layers/attention/{name}_norm/scale' for name in ('query', 'key')},
    ),
    ({'remat': 'full', 'scan_unroll': 2}, set()),
    ({'dtype': 'bfloat16'}, set()),
  ],
)
def test_options_only_remove_names(override, absent):
  full = dict(qkv_bias=True, tied_head=False)
  names = _names(factories.transformer_config(**full))
  fewer = _names(factories.transformer_config(**{**full, **override}))
  assert fewer.items() <= names.items()
  assert names.keys() - fewer.keys() == absent


def test_quickstart_has_its_number_of_parameters():
  model = dict(default.get_config().model, vocab_size=20)
  del model['pretrained']
  config = TransformerConfig(**model)
  sizes = [np.prod(shape) for shape, _ in _names(config).values()]
  assert sum(sizes) == 124_544


def test_parameters_name_their_axes():
  config = factories.transformer_config(qkv_bias=True, tied_head=False)
  boxed = jax.eval_shape(make_policy(config).init, jax.random.PRNGKey(0))
  spec = nn.get_partition_spec(boxed)
  attention, mlp = spec['layers']['attention'], spec['layers']['mlp']
  expected = {
    'embedding': ('vocab', 'embed'),
    'head': ('vocab', 'embed'),
    'query': ('layers', 'embed', 'heads', 'head_dim'),
    'query bias': ('layers', 'heads', 'head_dim'),
    'key': ('layers', 'embed', 'kv_heads', 'head_dim'),
    'output': ('layers', 'heads', 'head_dim', 'embed'),
    'up': ('layers', 'embed', 'mlp'),
    'down': ('layers', 'mlp', 'embed'),
    'norm': ('layers', 'norm'),
  }
  got = {
    'embedding': spec['embedding'],
    'head': spec['head'],
    'query': attention['query']['kernel'],
    'query bias': attention['query']['bias'],
    'key': attention['key']['kernel'],
    'output': attention['output']['kernel'],
    'up': mlp['up']['kernel'],
    'down': mlp['down']['kernel'],
    'norm': spec['layers']['mlp_norm']['scale'],
  }
  assert {name: tuple(axes) for name, axes in got.items()} == expected


@pytest.fixture(scope='module')
def inputs():
  prompts = factories.make_prompts(3, 7)
  return prompts.tokens, prompts.mask


def _value_and_gradient(config, params, inputs):
  policy = make_policy(config)
  tokens, mask = inputs
  weight = jax.random.normal(jax.random.PRNGKey(3), (3, 7, config.vocab_size))
  weight = weight * mask[..., None]

  def loss(params):
    logits = policy.logits(params, policy.apply(params, tokens, mask))
    return jnp.sum(logits * weight), logits

  differentiate = jax.value_and_grad(loss, has_aux=True)
  (_, logits), gradient = jax.jit(differentiate)(params)
  return logits, gradient


@pytest.fixture(scope='module')
def plain(inputs):
  config = factories.transformer_config(qkv_bias=True, tied_head=False)
  params = factories.make_params(config)
  return config, params, *_value_and_gradient(config, params, inputs)


@pytest.mark.parametrize(('remat', 'scan_unroll'), [('dots', 1), ('full', 2)])
def test_remat_and_unrolling_change_neither_values_nor_gradients(
  plain, inputs, remat, scan_unroll
):
  _, params, logits, gradient = plain
  config = factories.transformer_config(
    qkv_bias=True,
    tied_head=False,
    remat=remat,
    scan_unroll=scan_unroll,
  )
  got_logits, got_gradient = _value_and_gradient(config, params, inputs)
  np.testing.assert_allclose(got_logits, logits, atol=1e-5)
  assert factories.relative_distance(got_gradient, gradient) < 1e-6


def test_remat_saves_less(inputs):
  """What a remat policy is for: fewer residuals kept for the backward pass."""
  counts = {}
  for remat in ('none', 'dots', 'full'):
    config = factories.transformer_config(remat=remat)
    policy = make_policy(config)

    def total(params, policy=policy):
      return jnp.sum(policy.apply(params, *inputs))

    pullback = jax.eval_shape(
      lambda params, total=total: jax.vjp(total, params)[1],
      factories.make_params(config),
    )
    counts[remat] = sum(leaf.size for leaf in jax.tree.leaves(pullback))
  assert counts['full'] < counts['dots'] < counts['none']


def test_bfloat16_compute_is_close(plain, inputs):
  _, params, expected, _ = plain
  config = factories.transformer_config(
    qkv_bias=True, tied_head=False, dtype='bfloat16'
  )
  policy = make_policy(config)

  @jax.jit
  def logits_of(params):
    return policy.logits(params, policy.apply(params, *inputs))

  logits = logits_of(params)
  assert logits.dtype == jnp.float32
  real = np.asarray(inputs[1])
  distance = factories.relative_distance(logits[real], expected[real])
  assert 1e-4 < distance < 3e-2
  # Master parameters are f32, and so is what updates them.
  gradient = jax.eval_shape(
    jax.grad(lambda params: jnp.sum(logits_of(params))), params
  )
  dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(gradient)}
  assert dtypes == {'float32'}


def test_tied_head_is_the_embedding_transposed():
  config = factories.transformer_config()
  params = factories.make_params(config)
  hidden = np.random.default_rng(0).standard_normal((2, 16))
  hidden = jnp.asarray(hidden, jnp.float32)
  got = make_policy(config).logits(params, hidden)
  expected = np.asarray(hidden) @ params['embedding'].T
  np.testing.assert_allclose(got, expected, atol=1e-5)


def test_untied_head_is_its_own_matrix(plain):
  config, params, *_ = plain
  hidden = np.random.default_rng(0).standard_normal((2, 16))
  hidden = jnp.asarray(hidden, jnp.float32)
  got = make_policy(config).logits(params, hidden)
  expected = np.asarray(hidden) @ params['head'].T
  np.testing.assert_allclose(got, expected, atol=1e-5)


@functools.cache
def _sharded(config, mesh):
  """Loss, gradients and compiled text over a mesh."""
  policy = make_policy(config, mesh)
  boxed = jax.eval_shape(policy.init, jax.random.PRNGKey(0))
  shardings = parallel.tree_shardings(mesh, boxed)
  rows = parallel.batch_sharding(mesh)
  rng = np.random.default_rng(0)
  tokens = rng.integers(2, factories.VOCAB_SIZE, (8, 12)).astype(np.int32)
  mask = np.arange(12) >= np.arange(8)[:, None]

  def loss(params, tokens, mask):
    hidden = policy.apply(params, tokens, mask)
    logits = policy.logits(params, hidden)
    found = jax.nn.log_softmax(logits)[..., 3]
    return -jnp.sum(jnp.where(mask, found, 0.0)) / mask.sum()

  compiled = (
    jax.jit(
      jax.value_and_grad(loss),
      in_shardings=(shardings, rows, rows),
      out_shardings=(None, shardings),
    )
    .lower(factories.make_params(config), tokens, mask)
    .compile()
  )
  params = jax.device_put(factories.make_params(config), shardings)
  arrays = jax.device_put((tokens, mask), rows)
  return *jax.device_get(compiled(params, *arrays)), compiled.as_text()


@pytest.mark.slow
@pytest.mark.parametrize(
  ('num_experts', 'attention'), [(4, 'heads'), (0, 'columns')]
)
def test_the_columns_of_the_residual_stream_can_be_split(
  num_experts, attention
):
  mesh = parallel.make_mesh(2, 2, 2)
  common = dict(remat='full', num_experts=num_experts)
  whole = factories.transformer_config(**common)
  split = factories.transformer_config(
    **common, shard_sequence=True, shard_attention=attention
  )
  loss, gradient, text = _sharded(whole, mesh)
  got, got_gradient, got_text = _sharded(split, mesh)
  np.testing.assert_allclose(got, loss, atol=1e-5)
  assert factories.relative_distance(got_gradient, gradient) < 1e-5
  # What is kept for the backward pass: of 2 layers, 2 rows a device, columns.
  kept, halved = 'f32[2,2,12,16]', 'f32[2,2,6,16]'
  assert (kept in text, halved in text) == (True, False)
  assert (kept in got_text, halved in got_text) == (False, True)
  # Of keys and values, 2 rows of a device with both heads and all columns.
  gathered = re.search(r'f32\[2,2,12,6\]\S* all-gather', got_text)
  assert bool(gathered) == (attention == 'columns')


def test_one_column_is_never_split():
  mesh = parallel.make_mesh(2, 2, 2)

  def lower(**overrides):
    config = factories.transformer_config(**overrides)
    policy = make_policy(config, mesh)
    params = factories.make_params(config)
    _, cache = jax.eval_shape(
      lambda: policy.prefill(params, factories.make_prompts(4, 5), 2, 4)
    )
    step = jax.ShapeDtypeStruct((), jnp.int32)
    tokens = jax.ShapeDtypeStruct((8,), jnp.int32)

    def decode(params, *more):
      return policy.decode(policy.for_decoding(params), *more)

    return jax.jit(decode).lower(params, cache, tokens, step).as_text()

  assert lower() == lower(shard_sequence=True)
