import flax.linen as nn
import jax
import pytest

from dppo_jax.models.policy import make_policy
from dppo_jax.runtime.hub.weight_map import stacks
from tests.support import factories


def _stacks(**overrides):
  config = factories.transformer_config(**overrides)
  boxed = jax.eval_shape(make_policy(config).init, jax.random.PRNGKey(0))
  return {stack.path: stack for _, stack in stacks(nn.unbox(boxed))}


def test_names_and_shapes_of_a_layer():
  found = _stacks(qkv_bias=True, tied_head=False)
  query = found['layers/attention/query/kernel']
  assert query.names == {
    (i,): f'model.layers.{i}.self_attn.q_proj.weight' for i in range(2)
  }
  # Stored [outputs, inputs] = [heads · head_dim, width].
  assert (query.shape, query.view) == ((24, 16), (4, 6, 16))
  assert query.order == (2, 0, 1)
  output = found['layers/attention/output/kernel']
  assert (output.shape, output.view) == ((16, 24), (16, 4, 6))
  assert output.order == (1, 2, 0)
  bias = found['layers/attention/key/bias']
  assert (bias.shape, bias.view, bias.order) == ((12,), (2, 6), (0, 1))


def test_names_and_shapes_outside_of_layers():
  found = _stacks(tied_head=False)
  embedding, head = found['embedding'], found['head']
  assert embedding.names == {(): 'model.embed_tokens.weight'}
  assert (embedding.shape, embedding.order) == ((24, 16), (0, 1))
  assert head.names == {(): 'lm_head.weight'}
  assert (head.shape, head.order) == ((24, 16), (0, 1))
  assert found['final_norm/scale'].shape == (16,)


def test_names_and_shapes_of_experts():
  found = _stacks(num_layers=4, num_experts=3, decoder_sparse_step=2)
  up = found['layers/layer_1/mlp/experts/up/kernel']
  assert up.names == {
    (turn, expert): f'model.layers.{2 * turn + 1}.mlp.experts.{expert}'
    '.up_proj.weight'
    for turn in range(2)
    for expert in range(3)
  }
  assert (up.shape, up.order) == ((8, 16), (1, 0))
  router = found['layers/layer_1/mlp/router/kernel']
  assert router.names[(1,)] == 'model.layers.3.mlp.gate.weight'
  assert router.shape == (3, 16)
  dense = found['layers/layer_0/mlp/up/kernel']
  assert dense.names[(1,)] == 'model.layers.2.mlp.up_proj.weight'
  assert dense.shape == (24, 16)


@pytest.mark.parametrize('qk_norm', [True, False])
def test_no_tensor_is_used_twice(qk_norm):
  found = _stacks(qkv_bias=True, tied_head=False, qk_norm=qk_norm)
  names = [name for stack in found.values() for name in stack.names.values()]
  assert len(names) == len(set(names)) == 3 + 2 * (12 + 2 * qk_norm)
