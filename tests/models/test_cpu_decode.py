import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.models import cpu_decode
from dppo_jax.models.policy import make_policy
from tests.support import factories


@pytest.mark.parametrize('name', ['embedding', 'final_norm'])
def test_what_is_not_of_a_layer_is_kept(name):
  config = factories.transformer_config()
  params = factories.make_params(config)
  got = cpu_decode.unroll(config, params)
  assert 'layers' not in got.rest
  assert got.rest[name] is not None
  assert 'layers' in params  # The caller's is kept.


def test_layers_come_in_the_order_they_are_run():
  # Layers 1 and 3 have experts, 0 and 2 none: two turns of a block of two.
  config = factories.transformer_config(
    num_layers=4, num_experts=6, decoder_sparse_step=2
  )
  params = factories.make_params(config)
  got = cpu_decode.unroll(config, params)
  stacked = params['layers']
  assert len(got.layers) == 4
  for i, variables in enumerate(got.layers):
    turn, place = divmod(i, 2)
    output = stacked[f'layer_{place}']['attention']['output']['kernel'][turn]
    np.testing.assert_array_equal(
      variables['turned']['attention']['output']['kernel'],
      output.reshape(-1, output.shape[-1]).T,
    )
    assert ('experts' in variables['params']['mlp']) == (place == 1)


def test_split_layers():
  keys, values = jnp.arange(6.0).reshape(3, 2), -jnp.arange(6.0).reshape(3, 2)
  pairs = cpu_decode.split_layers((keys, values))
  assert len(pairs) == 3
  np.testing.assert_array_equal(pairs[1][0], [2.0, 3.0])
  np.testing.assert_array_equal(pairs[1][1], [-2.0, -3.0])


@pytest.mark.parametrize('in_slots', [False, True])
def test_the_cache_is_written_in_place(in_slots):
  length = 300  # More than is read at once: a loop over blocks.
  config = factories.transformer_config(num_layers=1)
  policy, params = make_policy(config), factories.make_params(config)
  prompts = factories.make_prompts(2, 5)
  cache = jax.eval_shape(lambda: policy.prefill(params, prompts, 1, length)[1])
  steps, decode = jnp.zeros((), jnp.int32), policy.decode
  if in_slots:
    cache = jax.eval_shape(lambda: policy.slots.empty(cache.prompt, 2, length))
    steps = jnp.zeros(2, jnp.int32)

    def decode(*arguments):
      return policy.slots.decode(*arguments)[:2]

  def run(params, cache):
    weights = policy.for_decoding(params)

    def step(carry):
      steps, _, cache = carry
      tokens = jnp.full(2, 5, jnp.int32)
      return steps + 1, *decode(weights, cache, tokens, steps)

    hidden = jnp.zeros((2, config.d_model))
    start = steps, hidden, cache
    return jax.lax.while_loop(lambda c: jnp.all(c[0] < length), step, start)

  compiled = jax.jit(run, donate_argnums=1).lower(params, cache).compile()
  size = jax.tree.leaves(cache.completion)[0].size
  found = [
    kind
    for shape, kind in re.findall(
      r'= f32\[([\d,]+)\]\S* ([\w-]+)\(', compiled.as_text()
    )
    if math.prod(map(int, shape.split(','))) == size
  ]
  assert 'copy' not in found
  assert {'dynamic-update-slice', 'scatter'} & set(found), set(found)
