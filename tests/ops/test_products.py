import ast
import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.base import TrainState
from dppo_jax.learner import loss as loss_lib
from dppo_jax.learner import optimizer as optimizer_lib
from dppo_jax.learner import train_step as step_lib
from dppo_jax.models.policy import make_policy
from dppo_jax.ops import products
from dppo_jax.sampling import decode
from tests.support import factories

_PACKAGE = pathlib.Path(products.__file__).parents[1]
_LAYERS = ('ops', 'models', 'sampling', 'learner')
_CALLS = {
  'dot',
  'dot_general',
  'einsum',
  'matmul',
  'ragged_dot',
  'tensordot',
  'vdot',
}
_DOT = re.compile(
  r'stablehlo\.dot_general .*?(?:precision = \[(\w+), (\w+)\])?'
  r' : \(tensor<(?:\d+x)*(\w+)>, tensor<(?:\d+x)*(\w+)>\)'
)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_the_gradient_of_an_f32_product(dtype):
  rng = np.random.default_rng(0)
  a, b, slope = (
    jnp.asarray(rng.normal(size=size), kind)
    for size, kind in (((3, 5), dtype), ((4, 5), dtype), ((3, 4), jnp.float32))
  )

  def total(a, b):
    return jnp.sum(products.einsum_f32('ij,kj->ik', a, b) * slope)

  got = jax.grad(total, (0, 1))(a, b)
  assert got[0].dtype == got[1].dtype == dtype
  f64 = [np.asarray(x, np.float64) for x in (a, b, slope)]
  expected = f64[2] @ f64[1], f64[2].T @ f64[0]
  tolerance = 1e-6 if dtype == jnp.float32 else 1e-2
  assert factories.relative_distance(got, expected) <= tolerance


def test_sixteen_bits_are_summed_in_f32():
  """Of bf16, 256 ones and 256 times 2**-9 are not 256."""
  b = jnp.where(jnp.arange(512) % 2 == 0, 1.0, 2.0**-9).astype(jnp.bfloat16)
  ones = jnp.ones((1, 512), jnp.bfloat16)
  got = products.einsum_f32('ij,jk->ik', ones, b[:, None])
  assert float(got[0, 0]) == 256.5


@pytest.mark.parametrize('layer', _LAYERS)
def test_products_are_made_here_alone(layer):
  for path in sorted((_PACKAGE / layer).rglob('*.py')):
    if path.name == 'products.py':
      continue
    for node in ast.walk(ast.parse(path.read_text())):
      assert not isinstance(node, ast.MatMult), path
      if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        owner = ast.unparse(node.func.value)
        made_here = node.func.attr not in _CALLS or owner == 'products'
        assert made_here, f'{path}:{node.lineno}'


def _shape(**overrides):
  return factories.transformer_config(**overrides)


_MODELS = {
  'dense': _shape,
  'experts': factories.moe_config,
}


def _step(config):
  """The train step with every term of the loss, and its arguments."""
  policy, mesh = make_policy(config), factories.one_device_mesh()
  optimizer = optimizer_lib.make_optimizer(factories.optimizer_config())
  params = factories.make_params(config)
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    key=jax.random.PRNGKey(0),
  )
  loss_fn = functools.partial(
    loss_lib.policy_loss,
    policy,
    factories.vocabulary_config(),
    factories.loss_config(
      prompt_length=5, shared_rows=4, entropy_coefficient=0.01
    ),
  )
  step_config = factories.step_config(group_size=4, prompt_length=5)

  def step(state, batch):
    learner = step_lib.Learner(
      loss_fn, lambda *_: {}, optimizer, step_config, mesh
    )
    return step_lib.train_step(learner, state, batch)[:2]

  return step, (state, factories.make_batch(2, 4, 5, 6))


def _sampler(config):
  policy, params = make_policy(config), factories.make_params(config)
  run = functools.partial(
    decode.sample,
    policy,
    factories.vocabulary_axes(),
    factories.sampling_config(top_k=3),
  )
  prompts = factories.make_prompts(2, 5)
  return run, (params, prompts, jax.random.PRNGKey(0))


@functools.cache
def _traced(program, model, dtype):
  """Traced once: for which platform it is lowered, tracing does not know."""
  run, arguments = program(_MODELS[model](dtype=dtype))
  return jax.jit(run).trace(*arguments)


def _dots(traced):
  """(precisions, dtypes) of every product, on whichever platform."""
  text = traced.lower(lowering_platforms=('cpu', 'tpu', 'cuda')).as_text()
  found = [match.groups() for match in _DOT.finditer(text)]
  assert len(found) == text.count('stablehlo.dot_general')
  return [(set(dot[:2]), set(dot[2:])) for dot in found], text


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('model', _MODELS)
@pytest.mark.parametrize('program', [_step, _sampler])
def test_float32_means_float32(program, model, dtype):
  """Every product of f32 asks for the most; none of bf16 asks for anything."""
  dots, text = _dots(_traced(program, model, dtype))
  kinds = [frozenset(types) for _, types in dots]
  assert frozenset({'bf16' if dtype == 'bfloat16' else 'f32'}) in kinds
  for precisions, types in dots:
    assert len(types) == 1, 'one operand was widened'
    wanted = {'HIGHEST'} if types == {'f32'} else {'DEFAULT'}
    assert precisions - {None} == wanted or (
      types == {'bf16'} and precisions == {None}
    )
  ragged = [line for line in text.splitlines() if 'ragged_dot' in line]
  for line in ragged:
    if 'xf32>' in line.split('->')[0] and 'bf16' not in line.split('->')[0]:
      assert 'HIGHEST' in line
