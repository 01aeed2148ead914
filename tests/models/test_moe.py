import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.models import moe
from dppo_jax.models.policy import make_policy
from tests.support import factories


def _layer(config, mesh=None):
  return moe.RoutedFeedForward(config, mesh)


@pytest.fixture(scope='module')
def streams():
  rng = np.random.default_rng(0)
  shapes = ((8, 3, 16), (8, 5, 16))
  return tuple(jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes)


@pytest.fixture(scope='module')
def params(streams):
  init = jax.jit(_layer(factories.moe_config()).init)
  return nn.unbox(init(jax.random.PRNGKey(1), streams, None, None))


def _silu(x):
  return x / (1 + np.exp(-x))


def _dense(params, x, norm, ids=None):
  """Every expert of every token, one by one, in f64."""
  p = jax.tree.map(lambda a: np.asarray(a, np.float64), params['params'])
  x = np.asarray(x, np.float64).reshape(-1, 16)
  logits = x @ p['router']['kernel']
  law = np.exp(logits - logits.max(-1, keepdims=True))
  law /= law.sum(-1, keepdims=True)
  chosen = np.argsort(-law, -1)[:, :2] if ids is None else ids.reshape(-1, 2)
  out = np.zeros_like(x)
  for token, experts in enumerate(chosen):
    gates = law[token, experts]
    gates = gates / gates.sum() if norm else gates
    for gate, e in zip(gates, experts, strict=True):
      kernels = (p['experts'][n]['kernel'][e] for n in ('gate', 'up', 'down'))
      w_gate, w_up, w_down = kernels
      hidden = _silu(x[token] @ w_gate) * (x[token] @ w_up)
      out[token] += gate * (hidden @ w_down)
  return out, chosen, law


@pytest.mark.parametrize('norm', [True, False])
def test_the_layer_is_its_definition(streams, params, norm):
  layer = _layer(factories.moe_config(norm_topk_prob=norm))
  outputs, routing = jax.jit(layer.apply)(params, streams, None, None)
  for x, got, ids in zip(streams, outputs, routing.routes, strict=True):
    expected, chosen, _ = _dense(params, x, norm)
    np.testing.assert_allclose(got.reshape(-1, 16), expected, atol=1e-5)
    np.testing.assert_array_equal(ids.reshape(-1, 2), chosen)


@pytest.mark.parametrize('norm', [True, False])
def test_given_routes_are_taken_with_the_gates_of_today(streams, params, norm):
  rng = np.random.default_rng(2)
  routes = tuple(
    np.argsort(rng.random((*x.shape[:2], 6)), -1)[..., :2].astype(np.uint8)
    for x in streams
  )
  layer = _layer(factories.moe_config(norm_topk_prob=norm))
  outputs, routing = jax.jit(layer.apply)(params, streams, routes, None)
  for x, got, ids, route in zip(
    streams, outputs, routing.routes, routes, strict=True
  ):
    expected, *_ = _dense(params, x, norm, route)
    np.testing.assert_allclose(got.reshape(-1, 16), expected, atol=1e-5)
    assert ids.dtype == jnp.int32
    np.testing.assert_array_equal(ids, route)


def test_gates_of_impossible_experts_are_finite():
  """A padded column replays expert 0 twice, whatever the router thinks."""
  logits = jnp.array([[-2000.0, 0.0, 1.0]])
  ids = jnp.zeros((1, 2), jnp.int32)
  for norm, expected in ((True, 0.5), (False, 0.0)):
    gates = moe.gates_of(logits, ids, norm_topk_prob=norm)
    np.testing.assert_array_equal(gates, [[expected] * 2])


def test_statistics_count_real_tokens(streams, params):
  rng = np.random.default_rng(3)
  masks = tuple(jnp.asarray(rng.random(x.shape[:2]) < 0.5) for x in streams)
  layer = _layer(factories.moe_config())
  _, routing = jax.jit(layer.apply)(params, streams, None, masks)
  real = np.concatenate([np.asarray(m).reshape(-1) for m in masks])
  x = np.concatenate([np.asarray(x).reshape(-1, 16) for x in streams])
  _, chosen, law = _dense(params, x, norm=True)
  share = np.stack([(chosen == e).any(-1)[real].mean() for e in range(6)])
  np.testing.assert_allclose(routing.expert_share, share, atol=1e-6)
  law = law[real]
  np.testing.assert_allclose(routing.expert_probability, law.mean(0), atol=1e-6)
  entropy = -(law * np.log(law)).sum(-1).mean()
  np.testing.assert_allclose(routing.entropy, entropy, atol=1e-6)


def _routing(share, probability):
  return moe.Routing(
    routes=(),
    expert_share=jnp.asarray(share),
    expert_probability=jnp.asarray(probability),
    entropy=jnp.asarray([0.5, 1.5]),
  )


def test_metrics_by_hand():
  even = _routing([[0.5] * 4] * 2, [[0.25] * 4] * 2)  # k = 2 of E = 4.
  assert float(moe.load_balance(even)) == 2.0
  one = _routing([[1.0, 1, 0, 0]] * 2, [[0.5, 0.25, 0.25, 0]] * 2)
  assert float(moe.load_balance(one)) == 3.0
  # Layers are pooled before the product: their skews cancel here.
  both = _routing(
    [[1.0, 1, 0, 0], [0.0, 0, 1, 1]], [[0.5, 0.5, 0, 0], [0.0, 0, 0.5, 0.5]]
  )
  metrics = {k: float(v) for k, v in moe.router_metrics(both).items()}
  assert metrics == {
    'router/load_balance': 2.0,
    'router/entropy': 1.0,
    'router/max_expert_share': 0.5,
  }


def test_load_balance_has_a_gradient(streams, params):
  def loss(params):
    _, routing = _layer(factories.moe_config()).apply(
      params, streams, None, None
    )
    by_layer = dataclasses.replace(
      routing,
      expert_share=routing.expert_share[None],
      expert_probability=routing.expert_probability[None],
    )
    return moe.load_balance(by_layer)

  gradient = jax.jit(jax.grad(loss))(params)['params']
  assert np.abs(gradient['router']['kernel']).max() > 1e-4
  assert not np.any(gradient['experts']['up']['kernel'])


@pytest.mark.parametrize(
  ('overrides', 'block'),
  [
    ({}, (True,)),
    ({'num_experts': 0}, (False,)),
    ({'decoder_sparse_step': 2}, (False, True)),
    ({'decoder_sparse_step': 3}, (False, False, True, False)),
    ({'decoder_sparse_step': 5}, (False,)),
    ({'mlp_only_layers': (0,)}, (False, True, True, True)),
    ({'mlp_only_layers': (0, 2)}, (False, True)),
    ({'mlp_only_layers': (0, 1, 2, 3)}, (False,)),
    (
      {'mlp_only_layers': (1,), 'decoder_sparse_step': 2},
      (False,) * 3 + (True,),
    ),
  ],
)
def test_blocks(overrides, block):
  assert moe.block_of(factories.moe_config(**overrides)) == block


def test_experts_name_their_axes():
  config = factories.moe_config(decoder_sparse_step=2)
  boxed = jax.eval_shape(make_policy(config).init, jax.random.PRNGKey(0))
  spec = nn.get_partition_spec(boxed)['layers']
  experts = spec['layer_1']['mlp']['experts']
  wide = ('layers', 'expert', 'embed', 'mlp')
  assert tuple(experts['gate']['kernel']) == wide
  assert tuple(experts['up']['kernel']) == wide
  down = ('layers', 'expert', 'mlp', 'embed')
  assert tuple(experts['down']['kernel']) == down
  router = spec['layer_1']['mlp']['router']['kernel']
  assert tuple(router) == ('layers', 'embed', 'router')
  assert set(spec['layer_0']['mlp']) == {'gate', 'up', 'down'}
  shape = nn.unbox(boxed)['layers']['layer_1']['mlp']['experts']
  assert shape['down']['kernel'].shape == (2, 6, 8, 16)


def _value_and_gradient(config, params, mesh, shardings):
  policy = make_policy(config, mesh)
  prompts = factories.make_prompts(8, 5)
  completions = jnp.asarray(
    np.random.default_rng(4).integers(2, 24, (16, 4)), jnp.int32
  )

  def loss(params, prompts, completions):
    hidden, routing = policy.apply_grouped_routed(
      params, prompts.tokens, prompts.mask, completions, None, None
    )
    return jnp.mean(jnp.square(hidden)), (hidden, routing)

  options = {}
  if shardings is not None:
    rows = parallel.batch_sharding(mesh)
    options = {'in_shardings': (shardings, rows, rows)}
  return jax.jit(jax.value_and_grad(loss, has_aux=True), **options)(
    params, prompts, completions
  )


@functools.cache
def _on_one_device(config):
  params = factories.make_params(config)
  return _value_and_gradient(config, params, None, None)


@pytest.mark.slow
@pytest.mark.parametrize(
  'sizes',
  [
    dict(data=1, fsdp=2, tensor=2, expert=2),
    dict(data=1, fsdp=1, tensor=2, expert=3),
  ],
)
def test_any_mesh_computes_the_same(sizes):
  config = factories.moe_config(num_layers=2)
  params = factories.make_params(config)
  expected = _on_one_device(config)
  count = int(np.prod(list(sizes.values())))
  mesh = parallel.make_mesh(**sizes, devices=jax.devices()[:count])
  boxed = jax.eval_shape(make_policy(config).init, jax.random.PRNGKey(0))
  shardings = parallel.tree_shardings(mesh, boxed)
  if 16 % parallel.num_batch_shards(mesh):
    shardings = None  # Three do not divide the rows: every device has all.
  got = _value_and_gradient(config, params, mesh, shardings)
  assert factories.relative_distance(got[1], expected[1]) < 1e-5
  (_, (hidden, routing)), (_, (hidden_of_one, routing_of_one)) = (
    got[0],
    expected[0],
  )
  np.testing.assert_allclose(hidden, hidden_of_one, atol=1e-4)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    routing,
    routing_of_one,
  )


def test_experts_are_on_the_devices_of_their_axis():
  config = factories.moe_config(num_layers=2)
  mesh = parallel.make_mesh(1, 1, 2, devices=jax.devices()[:4], expert=2)
  policy = make_policy(config, mesh)
  boxed = jax.eval_shape(policy.init, jax.random.PRNGKey(0))
  shardings = parallel.tree_shardings(mesh, boxed)
  init = jax.jit(lambda k: nn.unbox(policy.init(k)), out_shardings=shardings)
  kernel = init(jax.random.PRNGKey(0))['layers']['mlp']['experts']['up']
  shard = kernel['kernel'].addressable_shards[0].data
  assert shard.shape == (2, 3, 16, 4)
