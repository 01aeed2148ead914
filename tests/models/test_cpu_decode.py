import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.models import cpu_decode
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
