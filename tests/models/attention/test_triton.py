import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.models.attention import materialised, triton
from dppo_jax.models.attention.sources import KeySource
from tests.support import attention_cases as cases
from tests.support import tpus

_interpreted = functools.partial(triton.attend, interpret=True)


class _Own(cases.Case):
  """The rows of a case without their prompts."""

  def sources(self, arrays):
    return super().sources(arrays)[1:]


def _case(**shape):
  """Padded rows, one of padding alone, and a packed one; no whole block."""
  return _Own(*cases.shared_prompt(length=140, head_dim=64, **shape))


def test_agrees_with_all_scores():
  case = _case()
  out, gradients = cases.agree(case, _interpreted)
  padding = np.asarray(case.ids[2]) == 0
  np.testing.assert_array_equal(out[padding], 0.0)
  for gradient in gradients:
    assert np.isfinite(gradient).all()
  np.testing.assert_array_equal(gradients[0][padding], 0.0)
  for gradient in gradients[3:]:
    np.testing.assert_array_equal(gradient.swapaxes(1, 2)[padding], 0.0)


def test_sums_of_16_bits_are_of_32():
  """As near to f32 as all scores in bfloat16, with values far from 0.

  The kernels' own sum of output and cotangent would be 1.7 times as far.
  """
  case = _case()
  query, *prompt, keys, values = case.arrays
  wide = (query, *prompt, keys, values + 3)
  narrow = tuple(x.astype(jnp.bfloat16) for x in wide)
  wide = tuple(x.astype(jnp.float32) for x in narrow)
  exact = cases.outputs_and_gradients(case, materialised.attend, wide)

  def errors(attend):
    got = cases.outputs_and_gradients(case, attend, narrow)
    return [
      float(jnp.linalg.norm(x - y) / jnp.maximum(jnp.linalg.norm(y), 1e-30))
      for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(exact), strict=True)
    ]

  for got, bound in zip(
    errors(_interpreted), errors(materialised.attend), strict=True
  ):
    assert got <= 1.25 * bound


@pytest.mark.parametrize(
  ('query', 'change', 'why'),
  [
    (jnp.zeros((1, 2, 1, 128), jnp.bfloat16), {}, ''),
    (jnp.zeros((1, 2, 1, 64), jnp.float16), {}, ''),
    (jnp.zeros((1, 2, 1, 80), jnp.bfloat16), {}, 'a head_dim of 80'),
    (jnp.zeros((1, 2, 1, 64)), {}, 'float32, only 16 bits'),
    (
      jnp.zeros((1, 2, 1, 64), jnp.bfloat16),
      dict(is_causal=False),
      'keys other than',
    ),
    (
      jnp.zeros((1, 2, 1, 64), jnp.bfloat16),
      dict(query_segments=np.ones((1, 2), np.int32)),
      'ids of queries',
    ),
  ],
)
def test_refuses(query, change, why):
  ids = np.ones((1, 2), np.int32)
  keys = jnp.swapaxes(query, 1, 2)
  fields = dict(key_segments=ids, query_segments=ids, is_causal=True) | change
  refused = triton.refuses(query, [KeySource(keys, keys, **fields)])
  assert refused.startswith(why)
  assert bool(refused) == bool(why)


def test_refuses_a_prompt_that_rows_share():
  case = cases.shared_prompt(head_dim=64)
  query, sources = (
    case.arrays[0].astype(jnp.bfloat16),
    case.sources(case.arrays),
  )
  assert triton.refuses(query, sources).startswith('keys other than')
  assert not triton.refuses(query, sources[1:])


@tpus.needs_cuda_plugin
def test_compiles_for_every_kind():
  """A kernel forward and two backward, whose memory fits; rows and heads."""
  assert tpus.run(_COMPILE)[-1].split() == ['3'] * 8


_COMPILE = """
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from dppo_jax import parallel
from dppo_jax.models.attention import dispatch
from dppo_jax.models.attention.sources import KeySource
from dppo_jax.planning.aot import topologies

rows = parallel.BATCH_AXES


def count(kind, head_dim):
  devices = topologies.describe(topologies.parse(f'gpu:4x{kind}'))
  mesh = parallel.make_mesh(2, 1, 2, devices=devices)

  def array(*shape, dtype=jnp.bfloat16, axes=(rows, 'tensor')):
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

  def loss(query, own, ids):
    sources = [KeySource(*own, ids, ids, is_causal=True)]
    out = dispatch.attend(query, sources, 'auto', mesh)
    return jnp.sum(out.astype(jnp.float32) ** 2)

  lowered = jax.jit(jax.grad(loss, (0, 1))).lower(
    array(4, 150, 4, head_dim, axes=(rows, None, 'tensor')),
    (array(4, 2, 150, head_dim),) * 2,
    array(4, 150, dtype=jnp.int32, axes=(rows,)),
  )
  return lowered.compile().as_text().count('xla.gpu.triton"')


kinds = topologies.GPUS
print(*(count(kind, size) for kind in kinds for size in (64, 128)))
"""
