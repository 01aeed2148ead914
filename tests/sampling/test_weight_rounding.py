import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.models.policy import AdaptedParams
from dppo_jax.sampling import weight_rounding
from dppo_jax.sampling.weight_rounding import round_params
from tests.support import factories

_LADDER = ['float32', 'bfloat16', 'int8', 'fp8', 'int4']


@pytest.fixture(scope='module')
def params():
  config = factories.transformer_config(qkv_bias=True, tied_head=False)
  return jax.tree.map(jnp.asarray, factories.make_params(config))


def _named(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    '/'.join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves
  }


def _is_matrix(name):
  return name in ('embedding', 'head') or name.endswith('/kernel')


@jax.jit
def _round_all(params):
  """Compiled, as in the sampler: XLA must not fold two conversions away."""
  return {name: round_params(params, name) for name in _LADDER}


@pytest.fixture(scope='module')
def rounded(params):
  return _round_all(params)


@pytest.fixture(scope='module')
def rounded_twice(rounded):
  return jax.jit(
    lambda trees: {name: round_params(trees[name], name) for name in _LADDER}
  )(rounded)


def test_the_ladder_is_the_table():
  assert list(weight_rounding.PRECISIONS) == _LADDER


def test_float32_is_the_identity(params):
  assert round_params(params, 'float32') is params


def test_errors_are_ordered_for_every_matrix(params, rounded):
  exact = _named(params)
  for name in filter(_is_matrix, exact):
    errors = [
      np.abs(_named(rounded[precision])[name] - exact[name]).mean()
      for precision in _LADDER
    ]
    assert errors[0] == 0
    assert (np.diff(errors) > 0).all(), name


@pytest.mark.parametrize('precision', _LADDER[1:])
def test_norms_and_biases_are_untouched(params, rounded, precision):
  exact, got = _named(params), _named(rounded[precision])
  assert got.keys() == exact.keys()
  assert sum(not _is_matrix(name) for name in exact) == 8
  for name in exact:
    assert got[name].dtype == np.float32
    same = np.array_equal(got[name], exact[name])
    assert same != _is_matrix(name), name


@pytest.mark.parametrize('precision', _LADDER)
def test_rounding_twice_is_rounding_once(rounded, rounded_twice, precision):
  once, twice = rounded[precision], rounded_twice[precision]
  for got, expected in zip(
    jax.tree.leaves(twice), jax.tree.leaves(once), strict=True
  ):
    # A scale read off rounded weights may differ in its last bit.
    np.testing.assert_allclose(got, expected, rtol=3e-7)


def test_bfloat16_keeps_eight_bits(params, rounded):
  exact, got = _named(params), _named(rounded['bfloat16'])
  for name in filter(_is_matrix, exact):
    bits = got[name].view(np.uint32)
    assert not (bits & 0xFFFF).any()
    np.testing.assert_allclose(got[name], exact[name], rtol=2**-8)


# Axes a weight is summed over in the forward pass, layers first.
_IN_AXES = {
  'embedding': (1,),
  'head': (1,),
  'layers/attention/query/kernel': (1,),
  'layers/attention/key/kernel': (1,),
  'layers/attention/value/kernel': (1,),
  'layers/attention/output/kernel': (1, 2),
  'layers/mlp/gate/kernel': (1,),
  'layers/mlp/up/kernel': (1,),
  'layers/mlp/down/kernel': (1,),
}


@pytest.mark.parametrize(('precision', 'levels'), [('int8', 127), ('int4', 7)])
def test_integers_have_one_scale_an_output_channel(
  params, rounded, precision, levels
):
  exact, got = _named(params), _named(rounded[precision])
  assert set(filter(_is_matrix, exact)) == _IN_AXES.keys()
  for name, in_axes in _IN_AXES.items():
    largest = np.abs(exact[name]).max(axis=in_axes, keepdims=True)
    steps = got[name] / (largest / levels)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    assert np.abs(steps).max() == pytest.approx(levels)
    error = np.abs(got[name] - exact[name])
    assert (error <= largest / levels * (0.5 + 1e-4)).all()


def test_fp8_has_one_scale_a_tensor():
  """The largest weight becomes 448; three bits follow the leading one."""
  weights = jnp.array([[44.8, 4.0, 4.2, -4.3, 1e-3, 0.0]])
  got = round_params({'head': weights}, 'fp8')['head']
  np.testing.assert_allclose(
    got, [[44.8, 4.0, 4.0, -4.4, 1e-3, 0.0]], rtol=0.03, atol=1e-6
  )
  steps = np.asarray(got)[0, :4] * 10.0
  np.testing.assert_allclose(steps, [448.0, 40.0, 40.0, -44.0], rtol=1e-6)


@pytest.mark.parametrize('precision', _LADDER)
def test_a_matrix_of_zeros_stays(precision):
  got = round_params({'head': jnp.zeros((3, 2))}, precision)['head']
  np.testing.assert_array_equal(got, np.zeros((3, 2)))


def test_every_expert_has_scales_of_its_own():
  """Integers have one scale an output channel of an expert."""
  config = factories.moe_config(num_layers=2)
  exact = _named(factories.make_params(config))
  name = 'layers/mlp/experts/down/kernel'
  loud = {**exact, name: exact[name].copy()}
  loud[name][:, 0] *= 100
  quiet = round_params({'layers': _nested(exact[name])}, 'int8')
  mixed = round_params({'layers': _nested(loud[name])}, 'int8')
  others = [_named(tree)[name][:, 1:] for tree in (quiet, mixed)]
  np.testing.assert_array_equal(*others)


def _nested(kernel):
  return {'mlp': {'experts': {'down': {'kernel': jnp.asarray(kernel)}}}}


def _adapted(params):
  rng = np.random.default_rng(0)
  b = jnp.asarray(rng.standard_normal((2, 3, 24)), jnp.float32)
  adapter = {'layers': {'mlp': {'up': {'lora_b': b}}}}
  return AdaptedParams(base=params, adapter=adapter, scale=2.0)


@pytest.mark.parametrize('precision', _LADDER)
def test_an_adapter_stays_beside_the_rounded_base(params, rounded, precision):
  whole = _adapted(params)
  got = jax.jit(lambda p: round_params(p, precision))(whole)
  jax.tree.map(np.testing.assert_array_equal, got.base, rounded[precision])
  (before,), (after,) = map(jax.tree.leaves, (whole.adapter, got.adapter))
  exact = precision == 'float32'
  expected = before if exact else before.astype(jnp.bfloat16)
  np.testing.assert_array_equal(after, expected.astype(jnp.float32))
  assert got.scale == 2.0


@pytest.mark.parametrize('precision', ['int8', 'fp8', 'int4'])
def test_a_base_in_bfloat16_is_rounded_as_in_float32(params, precision):
  narrow = {'head': params['head'].astype(jnp.bfloat16)}
  wide = {'head': narrow['head'].astype(jnp.float32)}
  round_both = jax.jit(lambda p: round_params(p, precision)['head'])
  got = round_both(narrow)
  assert got.dtype == jnp.float32
  np.testing.assert_array_equal(got, round_both(wide))
  kept = round_params(narrow, 'bfloat16')['head']
  np.testing.assert_array_equal(kept, narrow['head'])
  assert kept.dtype == jnp.bfloat16
