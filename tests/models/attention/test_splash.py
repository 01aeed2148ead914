import functools

import jax.numpy as jnp
import numpy as np

from dppo_jax.models.attention import splash
from tests.support import attention_cases as cases
from tests.support import tpus

_interpreted = functools.partial(splash.attend, interpret=True)


def test_agrees_with_all_scores():
  """Lengths that no block divides, a row that sees nothing, a packed row."""
  case = cases.shared_prompt(prompt_length=20, length=140, head_dim=64)
  out, gradients = cases.agree(case, _interpreted)
  np.testing.assert_array_equal(out[1], 0.0)
  for gradient in gradients:
    assert np.isfinite(gradient).all()
  np.testing.assert_array_equal(gradients[0][1], 0.0)
  np.testing.assert_array_equal(gradients[3][1], 0.0)


def test_refuses_a_head_dim():
  assert splash.refuses(jnp.zeros((1, 2, 1, 128)), []) == ''
  assert 'head_dim of 80' in splash.refuses(jnp.zeros((1, 2, 1, 80)), [])


def test_lengths_are_padded_to_whole_blocks():
  assert splash._padded(1) == (128, 128)
  assert splash._padded(600) == (512, 1024)
  assert splash._padded(4096) == (512, 4096)


@tpus.needs_libtpu
def test_compiles_for_a_slice():
  """Two kernels forward, four backward, on a mesh of rows and heads."""
  assert tpus.run(_COMPILE)[-1] == '6'


_COMPILE = """
import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec
from dppo_jax import parallel
from dppo_jax.models.attention import sharded, splash
from dppo_jax.models.attention.sources import KeySource

topology = topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x2')
mesh = parallel.make_mesh(2, 1, 2, devices=topology.devices)
rows = parallel.BATCH_AXES


def array(*shape, dtype=jnp.bfloat16, axes=(rows, 'tensor')):
  sharding = NamedSharding(mesh, PartitionSpec(*axes))
  return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def loss(query, prompt, own, ids):
  sources = [
    KeySource(*prompt, ids[0], ids[1], is_causal=False),
    KeySource(*own, ids[1], ids[1], is_causal=True),
  ]
  out = sharded.attend(mesh, splash.attend, query, sources)
  return jnp.sum(out.astype(jnp.float32) ** 2)


ids = [
  array(n, size, dtype=jnp.int32, axes=(rows,))
  for n, size in ((2, 30), (4, 150))
]
lowered = jax.jit(jax.grad(loss, (0, 1, 2))).lower(
  array(4, 150, 4, 128, axes=(rows, None, 'tensor')),
  (array(2, 2, 30, 128),) * 2,
  (array(4, 2, 150, 128),) * 2,
  ids,
)
print(lowered.compile().as_text().count('tpu_custom_call'))
"""
